"""The public names of RFNet's weights, in its authors' checkpoints and in those of GSS."""

from __future__ import annotations

from collections.abc import Iterator

from gss_train.models.rfnet.network import NUM_LEVELS, RFNet

_ENCODERS = ("flair_encoder", "t1ce_encoder", "t1_encoder", "t2_encoder")
_ENCODER_UNITS = {"enter": "c1", "first": "c2", "second": "c3"}
_DECODER_UNITS = {"enter": "c1.conv", "merge": "c2.conv", "leave": "out.conv"}
_HEAD_UNITS = {
    "squeeze.convolution": "embedding_layer.0.conv",
    "mix.convolution": "embedding_layer.1.conv",
    "expand.convolution": "embedding_layer.2.conv",
    "reduce.convolution": "prm_layer.0.conv",
    "classify": "prm_layer.1",
}
_FUSION_UNITS = {
    "squeeze_regions": ("region_fusion.fusion_layer.0.conv",),
    "squeeze_shortcut": ("short_cut.0.conv",),
    "mix.convolution": ("region_fusion.fusion_layer.1.conv", "short_cut.1.conv"),
    "reduce.convolution": ("region_fusion.fusion_layer.2.conv", "short_cut.2.conv"),
}
_ATTENTION_UNITS = {"hidden": "0", "output": "2"}


def rfnet_public_keys(network: RFNet) -> dict[str, tuple[str, ...]]:
    """The public keys behind each parameter of an RFNet.

    The values of several keys lie one after the other on the parameter's first axis: the four encoders' in a grouped
    convolution, the regions' in the attention.
    """
    return {
        f"{unit}.{kind}": tuple(f"{source}.{kind}" for source in sources)
        for unit, sources in _rfnet_units(network.num_categories)
        for kind in ("weight", "bias")
    }


def _rfnet_units(num_categories: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    for level in range(NUM_LEVELS):
        number = level + 1
        for unit, public in _ENCODER_UNITS.items():
            yield (
                f"encoder.{level}.{unit}.convolution",
                tuple(f"{encoder}.e{number}_{public}.conv" for encoder in _ENCODERS),
            )
        for unit, public in _HEAD_UNITS.items():
            yield f"fusion_decoder.heads.{level}.{unit}", (f"decoder_fuse.prm_generator{number}.{public}",)
        for unit, paths in _FUSION_UNITS.items():
            yield (
                f"fusion_decoder.fusions.{level}.{unit}",
                tuple(f"decoder_fuse.RFM{number}.{path}" for path in paths),
            )
        for unit, public in _ATTENTION_UNITS.items():
            yield (
                f"fusion_decoder.fusions.{level}.attention.{unit}",
                tuple(
                    f"decoder_fuse.RFM{number}.modal_fusion.{region}.weight_layer.{public}"
                    for region in range(num_categories)
                ),
            )
    for decoder, source in (("fusion_decoder", "decoder_fuse"), ("separate_decoder", "decoder_sep")):
        yield f"{decoder}.classify", (f"{source}.seg_layer",)
        for level in range(NUM_LEVELS - 1):
            for unit, public in _DECODER_UNITS.items():
                yield f"{decoder}.levels.{level}.{unit}.convolution", (f"{source}.d{level + 1}_{public}",)
