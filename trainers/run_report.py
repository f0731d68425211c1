from pathlib import Path


def write_report(output_dir: Path) -> Path:
    return output_dir / "report.html"
