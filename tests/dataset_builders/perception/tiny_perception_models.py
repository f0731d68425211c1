"""Tiny, randomly initialised checkpoints of the real perception models with their real processors, saved to disk."""

from pathlib import Path

import torch
import transformers as hf
from tokenizers import pre_tokenizers


def save(kind: str, folder: Path, **changes) -> str:
    """Save the model called `kind`, the same at each call, and return its folder; `changes` are of its config."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return str(globals()[f"save_{kind}"](folder, **changes))


def save_depth_pro(folder: Path, **changes) -> Path:
    encoder = {
        "model_type": "dinov2",
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
    }
    config = hf.DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.5],
        scaled_images_feature_dims=[16, 8],
        merge_padding_value=1,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
        **{"use_fov_model": True, **changes},
    )
    model = hf.DepthProForDepthEstimation(config)
    with torch.no_grad():  # inverse depth about 0.4, field of view about 60 degrees
        last = [one for one in model.head.layers if isinstance(one, torch.nn.Conv2d)][-1]
        last.bias.fill_(0.4)
        last.weight.mul_(0.005)
        if model.fov_model is not None:
            model.fov_model.head.layers[-1].bias.fill_(60.0)
            model.fov_model.head.layers[-1].weight.mul_(0.1)
    return _save(folder, model, hf.DepthProImageProcessor(size={"height": 32, "width": 32}))


def save_depth_anything(folder: Path, **changes) -> Path:
    config = hf.DepthAnythingConfig(
        backbone_config=hf.Dinov2Config(
            image_size=28,
            patch_size=14,
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            mlp_ratio=2,
            out_indices=[1, 2, 3, 4],
            apply_layernorm=True,
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=16,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        **{"depth_estimation_type": "metric", "max_depth": 20, **changes},
    )
    processor = hf.DPTImageProcessor(size={"height": 28, "width": 28}, keep_aspect_ratio=True, ensure_multiple_of=14)
    return _save(folder, _louder(hf.DepthAnythingForDepthEstimation(config), 10.0), processor)


def save_zoedepth(folder: Path) -> Path:
    config = hf.ZoeDepthConfig(
        backbone_config=hf.BeitConfig(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            use_relative_position_bias=True,
            reshape_hidden_states=False,
            out_indices=[1, 2, 3, 4],
        ),
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        num_relative_features=4,
        bottleneck_features=8,
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[{"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
    )
    processor = hf.ZoeDepthImageProcessor(size={"height": 32, "width": 32}, ensure_multiple_of=32)
    return _save(folder, _louder(hf.ZoeDepthForDepthEstimation(config), 15.0), processor)


def _save(folder: Path, *parts) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _louder(model, factor=5.0):
    """With larger weights than a new model has, so that what it says depends on the image."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model


def save_sam(folder: Path) -> Path:
    config = hf.SamConfig(
        vision_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
            "global_attn_indexes": [1],
            "window_size": 4,
            "output_channels": 16,
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 32, "patch_size": 4, "mask_input_channels": 8},
        mask_decoder_config=MASK_DECODER,
    )
    processor = hf.SamImageProcessor(
        size={"longest_edge": 32},
        pad_size={"height": 32, "width": 32},
        mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    )
    return _save(folder, hf.SamModel(config), hf.SamProcessor(processor))


MASK_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


def save_sam2(folder: Path) -> Path:
    processor = hf.Sam2Processor(_sam2_images())
    return _save(folder, hf.Sam2Model(hf.Sam2Config(**SAM2_PARTS)), processor)


def save_sam2_video(folder: Path) -> Path:
    config = hf.Sam2VideoConfig(**SAM2_PARTS, **MEMORY, image_size=64)
    processor = hf.Sam2VideoProcessor(_sam2_images(), hf.Sam2VideoVideoProcessor(size={"height": 64, "width": 64}))
    return _save(folder, hf.Sam2VideoModel(config), processor)


SAM2_PARTS = dict(
    vision_config=dict(
        backbone_config=dict(
            model_type="sam2_hiera_det_model",
            hidden_size=8,
            num_attention_heads=1,
            image_size=[64, 64],
            blocks_per_stage=[1, 2, 1, 1],
            embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 1, 2, 2],
            window_size_per_stage=[4, 4, 4, 4],
            window_positional_embedding_background_size=[4, 4],
            global_attention_blocks=[2],
        ),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    ),
    prompt_encoder_config=dict(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=8),
    mask_decoder_config=MASK_DECODER,
)
MEMORY = dict(
    memory_attention_hidden_size=16,
    memory_attention_num_layers=1,
    memory_attention_feed_forward_hidden_size=32,
    memory_attention_rope_feat_sizes=[4, 4],
    memory_encoder_hidden_size=16,
    memory_encoder_output_channels=8,
    mask_downsampler_embed_dim=16,
    memory_fuser_embed_dim=16,
    memory_fuser_intermediate_dim=32,
)


def _sam2_images():
    return hf.Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})


def save_sam3(folder: Path) -> Path:
    return _save(folder, hf.Sam3Model(_sam3_config()), hf.Sam3Processor(_sam3_images(), clip_tokenizer()))


def save_sam3_video(folder: Path) -> Path:
    tracker = hf.Sam3TrackerVideoConfig(
        vision_config=SAM3_VISION,
        prompt_encoder_config=SAM3_PROMPTS,
        mask_decoder_config=MASK_DECODER,
        image_size=56,
        **MEMORY,
    )
    config = hf.Sam3VideoConfig(detector_config=_sam3_config(), tracker_config=tracker)
    video = hf.Sam2VideoVideoProcessor(size={"height": 56, "width": 56})
    processor = hf.Sam3VideoProcessor(_sam3_images(), video, clip_tokenizer())
    return _save(folder, hf.Sam3VideoModel(config), processor)


def _sam3_config():
    transformer = dict(hidden_size=16, num_attention_heads=2, intermediate_size=32)
    text = dict(projection_dim=16, num_hidden_layers=1, max_position_embeddings=32, **_clip_tokens())
    return hf.Sam3Config(
        vision_config=SAM3_VISION,
        text_config=dict(**transformer, **text),
        geometry_encoder_config=dict(**transformer, num_layers=1),
        detr_encoder_config=dict(**transformer, num_layers=1),
        detr_decoder_config=dict(**transformer, num_layers=2, num_queries=5),
        mask_decoder_config=dict(hidden_size=16, num_attention_heads=2),
    )


def save_sam3_tracker(folder: Path) -> Path:
    config = hf.Sam3TrackerConfig(
        vision_config=SAM3_VISION,
        prompt_encoder_config=SAM3_PROMPTS,
        mask_decoder_config=MASK_DECODER,
    )
    return _save(folder, hf.Sam3TrackerModel(config), hf.Sam3TrackerProcessor(_sam3_images()))


SAM3_VISION = dict(
    backbone_config=dict(
        model_type="sam3_vit_model",
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
    ),
    fpn_hidden_size=16,
    backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
)
SAM3_PROMPTS = dict(hidden_size=16, image_size=56, patch_size=14, mask_input_channels=8)


def _sam3_images():
    return hf.Sam3ImageProcessor(size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16})


def _clip_tokens() -> dict[str, int]:
    size = len(clip_tokenizer())
    return dict(vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1)


def clip_tokenizer(max_length: int = 32):
    letters = pre_tokenizers.ByteLevel.alphabet()
    # no text begins with token 0: OWL takes such a one for padding
    tokens = [*sorted(letters), *sorted(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return hf.CLIPTokenizer(vocab={token: k for k, token in enumerate(tokens)}, merges=[], model_max_length=max_length)


def save_owlv2(folder: Path) -> Path:
    return _save_owl(folder, hf.Owlv2Config, hf.Owlv2ForObjectDetection, hf.Owlv2ImageProcessor, hf.Owlv2Processor)


def save_owlvit(folder: Path) -> Path:
    return _save_owl(folder, hf.OwlViTConfig, hf.OwlViTForObjectDetection, hf.OwlViTImageProcessor, hf.OwlViTProcessor)


def _save_owl(folder: Path, config_class, model_class, images_class, processor_class) -> Path:
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    tokenizer = clip_tokenizer()
    config = config_class(
        text_config=dict(**sizes, **_clip_tokens(), max_position_embeddings=32),
        vision_config=dict(**sizes, image_size=32, patch_size=8),
        projection_dim=16,
    )
    return _save(
        folder, model_class(config), processor_class(images_class(size={"height": 32, "width": 32}), tokenizer)
    )


def save_grounding_dino(folder: Path) -> Path:
    return _save_dino(folder, hf.GroundingDinoConfig, hf.GroundingDinoForObjectDetection)


def save_mm_grounding_dino(folder: Path) -> Path:
    return _save_dino(folder, hf.MMGroundingDinoConfig, hf.MMGroundingDinoForObjectDetection)


def _save_dino(folder: Path, config_class, model_class) -> Path:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?"]
    letters = [chr(k) for k in range(ord("a"), ord("z") + 1)]
    words = ["cup", "red", "box", "chair", "table", "dining"]
    tokens += [*words, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = hf.BertTokenizer(vocab={token: k for k, token in enumerate(tokens)})
    config = config_class(
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        num_queries=8,
        num_feature_levels=3,
        encoder_n_points=2,
        decoder_n_points=2,
        text_config=dict(
            model_type="bert",
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=len(tokens),
        ),
        backbone_config=hf.SwinConfig(
            window_size=4,
            image_size=32,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            out_features=["stage2", "stage3", "stage4"],
            out_indices=[2, 3, 4],
        ),
        max_text_len=64,
    )
    images = hf.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    return _save(folder, model_class(config), hf.GroundingDinoProcessor(images, tokenizer))


def save_florence2(folder: Path) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    tokenizer = hf.BartTokenizer(
        vocab={token: k for k, token in enumerate(tokens)},
        merges=[],
        extra_special_tokens={"image_token": "<image>"},
    )
    tokenizer.add_tokens([f"<loc_{k}>" for k in range(1000)])
    config = hf.Florence2Config(
        vision_config=dict(
            depths=[1, 1, 1, 1],
            embed_dim=[8, 8, 16, 16],
            num_heads=[1, 1, 2, 2],
            num_groups=[1, 1, 2, 2],
            window_size=2,
            projection_dim=16,
        ),
        text_config=dict(
            vocab_size=len(tokenizer),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=128,
        ),
        image_token_id=tokenizer.image_token_id,
    )
    images = hf.CLIPImageProcessor(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=False
    )
    images.image_seq_length = 5  # 2 x 2 patches and their mean
    model = _louder(hf.Florence2ForConditionalGeneration(config))
    return _save(folder, model, hf.Florence2Processor(images, tokenizer))
