// The question with the newest mark of the board named at its end, as `marks.mention` writes it.
(question, marks) => {
  const mark = marks[marks.length - 1];
  const several = document.querySelectorAll("#ask_board figure").length > 1;
  const regions = marks.filter(one => one.x1 != null).length;
  const name = mark.x1 != null
    ? `[${"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(regions - 1) % 26]}]`
    : `the point (${mark.x.toFixed(3)}, ${mark.y.toFixed(3)})` + (several ? ` in image ${mark.image + 1}` : "");
  return `${(question || "").trimEnd()} ${name} `.trimStart();
}
