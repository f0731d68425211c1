"""What a boosted encoder must survive: every way in which people save, load, copy, compile, quantise and shard it."""

import copy
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import BitsAndBytesConfig, DINOv3ViTConfig, DINOv3ViTModel

from modeling_spatialboost import SpatialBoostConfig, SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import boosted_modules, is_second_channel
from tests.modeling_spatialboost.encoders import native_inputs, tiny_encoder

IMAGES = native_inputs("dinov3")["pixel_values"]


def perturb(model):
    """Move both the second channel and alpha away from their start."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_second_channel(name):
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.1)
    return model


@pytest.fixture
def model():
    return perturb(SpatialBoostModel.from_encoder(tiny_encoder("dinov3"))).eval()


def output(model, images=IMAGES):
    with torch.no_grad():
        return model(images).last_hidden_state


def test_the_mix_is_equation_1(model):
    attention = boosted_modules(model)[0]
    recorded = {}
    base_class = type(attention).__mro__[2]
    x = torch.randn(1, 21, 32)
    rope = model.backbone.rope_embeddings(IMAGES[:1])
    mixed = attention(x, position_embeddings=rope)[0]
    recorded["base"] = base_class.forward(attention, x, position_embeddings=rope)[0]
    recorded["plus"] = attention.attn_plus(x, position_embeddings=rope)[0]
    alpha = torch.sigmoid(attention.alpha_logit)
    assert not torch.equal(recorded["base"], recorded["plus"])
    torch.testing.assert_close(mixed, alpha * recorded["base"] + (1 - alpha) * recorded["plus"])


@pytest.mark.parametrize("start", [-3.0, 0.0, 5.0])
def test_the_start_of_alpha_does_not_change_the_output(start):
    encoder = tiny_encoder("dinov3")
    expected = output(encoder)
    boosted = SpatialBoostModel.from_encoder(encoder, alpha_logit_init=start).eval()
    assert torch.equal(output(boosted), expected)
    assert boosted.alpha_table()[0]["mean"] == pytest.approx(torch.sigmoid(torch.tensor(start)).item())


def test_alpha_has_no_gradient_until_attn_plus_has_moved(model):
    fresh = SpatialBoostModel.from_encoder(tiny_encoder("dinov3"))
    for boosted, moved in ((fresh, False), (model, True)):
        boosted(IMAGES).last_hidden_state.square().sum().backward()
        assert bool(boosted_modules(boosted)[0].alpha_logit.grad.abs().max() > 0) == moved


def test_sharded_save_and_load(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(output(SpatialBoostModel.from_pretrained(tmp_path).eval()), output(model))


def test_load_in_bf16(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = SpatialBoostModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert loaded.dtype == torch.bfloat16
    torch.testing.assert_close(output(loaded, IMAGES.bfloat16()).float(), output(model), rtol=0.1, atol=0.1)


def test_meta_device():
    with torch.device("meta"):
        model = SpatialBoostModel(SpatialBoostConfig(backbone_config=DINOv3ViTConfig(num_hidden_layers=2)))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert len(boosted_modules(model)) == 2


def test_vit_l_adds_the_parameters_that_a_copy_of_its_attention_has():
    config = DINOv3ViTConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=16
    )
    with torch.device("meta"):
        model = SpatialBoostModel(SpatialBoostConfig(backbone_config=config))
    added = sum(p.numel() for name, p in model.named_parameters() if is_second_channel(name))
    assert added == 24 * (4 * 1024 * 1024 + 3 * 1024 + 1024)  # four matrices, three biases (no key bias), alpha
    assert added / (sum(p.numel() for p in model.parameters()) - added) == pytest.approx(0.333, abs=0.01)


def test_device_map_with_offload_to_disk(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    device_map = {"backbone.embeddings": "cpu", "backbone.rope_embeddings": "cpu", "backbone.norm": "cpu"}
    device_map |= {"backbone.model.layer.0": "cpu", "backbone.model.layer.1": "disk"}
    loaded = SpatialBoostModel.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    ).eval()
    assert torch.equal(output(loaded), output(model))
    assert "DINOv3ViTLayer" in model._no_split_modules


class KeptActivations:
    """Counts the numbers that autograd keeps for the backward pass."""

    count = 0

    def __call__(self, tensor):
        self.count += tensor.numel()
        return tensor


@pytest.mark.parametrize("name", ["dinov3", "pe_core"])
def test_activation_checkpointing_gives_the_same_gradients(name):
    images = native_inputs(name)["pixel_values"]
    gradients = []
    for checkpointing in (False, True):
        model = perturb(SpatialBoostModel.from_encoder(tiny_encoder(name))).freeze_base_channel().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        kept = KeptActivations()
        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            loss = model(images).last_hidden_state.square().mean()
        loss.backward()
        gradients.append((kept.count, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (plain_size, plain), (checkpointed_size, checkpointed) = gradients
    assert checkpointed_size < plain_size / 2  # it really recomputes
    assert plain.keys() == checkpointed.keys() and len(plain) >= 10
    assert all(torch.equal(plain[key], checkpointed[key]) for key in plain)


def test_compile_as_one_graph(model):
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output(compiled), output(model), rtol=1e-5, atol=1e-5)


def test_deepcopy_and_pickle(model):
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(output(twin), output(model))
        with torch.no_grad():
            boosted_modules(twin)[0].alpha_logit.fill_(9.0)
        assert not torch.equal(output(twin), output(model))  # it is a copy, and its alpha is used
        twin.set_attn_implementation("eager")
        assert boosted_modules(twin)[0].attn_plus.config._attn_implementation == "eager"


@pytest.mark.parametrize("bits", [4, 8])
def test_load_in_4_and_8_bits(bits, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs the extra `quantization`")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = DINOv3ViTModel(DINOv3ViTConfig(**sizes, image_size=32, patch_size=8))  # 4 bits want multiples of 64
    model = perturb(SpatialBoostModel.from_encoder(encoder)).eval()
    model.save_pretrained(tmp_path)
    quantised = SpatialBoostModel.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    ).eval()
    layer = {4: bitsandbytes.nn.Linear4bit, 8: bitsandbytes.nn.Linear8bitLt}[bits]
    attention = boosted_modules(quantised)[0]
    assert isinstance(attention.q_proj, layer) and isinstance(attention.attn_plus.q_proj, layer)
    similarity = torch.cosine_similarity(output(quantised).float().flatten(), output(model).flatten(), dim=0)
    assert similarity > 0.9
    assert torch.allclose(attention.alpha_logit.float(), boosted_modules(model)[0].alpha_logit, atol=1e-2)


def test_train_mode_keeps_the_encoder_deterministic_and_its_coordinates_in_place(model):
    """DINOv3 rescales its patch coordinates at random in train mode; the boosted encoder must not."""
    encoder = tiny_encoder("dinov3").train()
    assert not torch.equal(output(encoder), output(encoder)), "the trap is gone: train() need not be overridden"
    expected = output(model)
    model.train()
    assert model.training and torch.equal(output(model), expected)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_two_processes_with_fsdp2_agree_with_one(model, tmp_path):
    """Sharded forward, a training step and the gathered state dict equal those of a single process."""
    model.save_pretrained(tmp_path / "model")
    script = tmp_path / "fsdp2.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, torch, torch.distributed as dist
            from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
            from torch.distributed.fsdp import fully_shard
            from modeling_spatialboost import SpatialBoostModel

            folder, images_file, result = sys.argv[1:]
            torch.set_num_threads(1)
            dist.init_process_group("gloo")
            mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
            model = SpatialBoostModel.from_pretrained(folder).freeze_base_channel().train()
            for layer in model.backbone.model.layer:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
            optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
            out = model(torch.load(images_file)).last_hidden_state
            out.square().mean().backward()
            optimizer.step()
            state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
            if dist.get_rank() == 0:
                torch.save({"output": out.detach(), "state": state}, result)
            dist.barrier()
            os._exit(0)  # now and then gloo's threads abort a process that takes itself apart
            """
        )
    )
    torch.save(IMAGES, tmp_path / "images.pt")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    command += [str(tmp_path / name) for name in ("model", "images.pt", "result.pt")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    sharded = torch.load(tmp_path / "result.pt")
    torch.testing.assert_close(sharded["output"], output(model), rtol=1e-5, atol=1e-5)
    single = SpatialBoostModel.from_pretrained(tmp_path / "model").freeze_base_channel().train()
    optimizer = torch.optim.SGD([p for p in single.parameters() if p.requires_grad], lr=0.1)
    single(IMAGES).last_hidden_state.square().mean().backward()
    optimizer.step()
    assert sharded["state"].keys() == single.state_dict().keys()
    for key, value in single.state_dict().items():
        torch.testing.assert_close(sharded["state"][key], value, rtol=1e-4, atol=1e-5)
