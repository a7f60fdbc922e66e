"""The public names of mmFormer's weights."""

from __future__ import annotations

from collections.abc import Iterator

from gss_train.models.mmformer.network import NUM_LEVELS, MMFormer

_MODALITIES = ("flair", "t1ce", "t1", "t2")
_ENCODER_UNITS = {"enter": "c1", "first": "c2", "second": "c3"}
_DECODER_UNITS = {"enter": "c1", "merge": "c2", "leave": "out"}
_FUSION_UNITS = {"squeeze": 0, "mix": 1, "leave": 2}
_ATTENTION, _FEED_FORWARD = "cross_attention_list.0.fn", "cross_ffn_list.0.fn"
_TRANSFORMER_UNITS = {
    "attention_norm": f"{_ATTENTION}.norm",
    "query_key_value": f"{_ATTENTION}.fn.qkv",
    "project": f"{_ATTENTION}.fn.proj",
    "feed_forward_norm": f"{_FEED_FORWARD}.norm",
    "expand": f"{_FEED_FORWARD}.fn.net.0",
    "reduce": f"{_FEED_FORWARD}.fn.net.3",
}


def mmformer_public_keys(network: MMFormer) -> dict[str, tuple[str, ...]]:
    """The public keys behind each parameter of an mmFormer.

    The values of several keys, one a modality, lie one after the other on the parameter's first axis. The public
    checkpoints also hold `<modality>_decode_conv`, which no prediction depends on and the network here has not.
    """
    units = dict(_units())
    keys = {"positions": tuple(f"{modality}_pos" for modality in _MODALITIES)}
    for name, _ in network.named_parameters():
        unit, _, kind = name.rpartition(".")
        if name not in keys:
            keys[name] = tuple(f"{source}.{kind}" for source in units[unit])
    return keys


def _units() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from _encoder_units()
    yield from _transformer_units()
    for decoder, public in (("fusion_decoder", "decoder_fuse"), ("separate_decoder", "decoder_sep")):
        yield f"{decoder}.classify", (f"{public}.seg_layer",)
        for level in range(NUM_LEVELS - 1):
            for unit, name in _DECODER_UNITS.items():
                yield f"{decoder}.levels.{level}.{unit}", (f"{public}.d{level + 1}_{name}.conv",)
    for level in range(NUM_LEVELS):
        for unit, index in _FUSION_UNITS.items():
            yield f"fusion_decoder.fusions.{level}.{unit}", (f"decoder_fuse.RFM{level + 1}.fusion_layer.{index}.conv",)
        yield f"fusion_decoder.heads.{level}", (f"decoder_fuse.seg_d{level + 1}",)


def _encoder_units() -> Iterator[tuple[str, tuple[str, ...]]]:
    for level in range(NUM_LEVELS):
        for unit, name in _ENCODER_UNITS.items():
            # The very first convolution stands alone, without a normalisation in front.
            public = f"e{level + 1}_{name}" if level == 0 and unit == "enter" else f"e{level + 1}_{name}.conv"
            yield f"encoder.{level}.{unit}", tuple(f"{modality}_encoder.{public}" for modality in _MODALITIES)


def _transformer_units() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "intra_transformers.embed", tuple(f"{modality}_encode_conv" for modality in _MODALITIES)
    yield "inter_transformer.decode", ("multimodal_decode_conv",)
    for unit, public in _TRANSFORMER_UNITS.items():
        yield f"inter_transformer.layer.{unit}", (f"multimodal_transformer.{public}",)
        for index, modality in enumerate(_MODALITIES):
            yield f"intra_transformers.layers.{index}.{unit}", (f"{modality}_transformer.{public}",)
