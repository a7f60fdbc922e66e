"""mmFormer's transformers: one per modality, then one over the tokens of all modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.checks import NUM_MODALITIES
from gss_train.models.layers.pointwise import PointwiseConvolution

NUM_HEADS = 8
HIDDEN_RATIO = 8


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each behind a layer normalisation and added to its input.

    Args:
        channels: channels of a token, a multiple of 8.
        dropout: probability of dropout on the attention weights, on what attention returns, and on both layers of the
            feed-forward network.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels, bias=False)
        self.project = nn.Linear(channels, channels)
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, HIDDEN_RATIO * channels)
        self.reduce = nn.Linear(HIDDEN_RATIO * channels, channels)
        self.dropout = dropout

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Map tokens `[B, N, channels]` with positions `[N, channels]` to tokens of the same shape."""
        tokens = tokens + positions
        # The published code drops what attention returns twice in a row, which is one dropout of this probability.
        attended = self._attend(self.attention_norm(tokens))
        tokens = tokens + functional.dropout(attended, 1 - (1 - self.dropout) ** 2, self.training)
        hidden = functional.gelu(self.expand(self.feed_forward_norm(tokens)))
        reduced = self.reduce(functional.dropout(hidden, self.dropout, self.training))
        return tokens + functional.dropout(reduced, self.dropout, self.training)

    def _attend(self, tokens: Tensor) -> Tensor:
        parts = self.query_key_value(tokens).unflatten(2, (3, NUM_HEADS, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        heads = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0
        )
        result: Tensor = self.project(heads.transpose(1, 2).flatten(2))
        return result


class IntraModalTransformers(nn.Module):
    """Makes tokens of each modality's coarsest features, one a voxel, and lets them attend to each other.

    Args:
        in_channels: channels of one modality's coarsest features.
        token_channels: channels of a token.
        dropout: see `TransformerLayer`.
    """

    def __init__(self, in_channels: int, token_channels: int, *, dropout: float) -> None:
        super().__init__()
        self.embed = PointwiseConvolution(
            NUM_MODALITIES * in_channels, NUM_MODALITIES * token_channels, groups=NUM_MODALITIES
        )
        self.layers = nn.ModuleList(TransformerLayer(token_channels, dropout=dropout) for _ in range(NUM_MODALITIES))

    def forward(self, features: Tensor, positions: Tensor) -> Tensor:
        """Attend.

        Args:
            features: `[B, M * in_channels, D, H, W]`, modality-major.
            positions: embedding of every token's place, `[M, D * H * W, token_channels]`.

        Returns:
            `[B, M, D * H * W, token_channels]`.
        """
        tokens = self.embed(features).unflatten(1, (NUM_MODALITIES, -1)).flatten(3).transpose(2, 3)
        modalities = zip(self.layers, tokens.unbind(1), positions.unbind(0), strict=True)
        return torch.stack([layer(own, places) for layer, own, places in modalities], dim=1)


class InterModalTransformer(nn.Module):
    """Lets the tokens of all modalities attend to each other.

    Args:
        out_channels: channels of the result per modality.
        token_channels: channels of a token.
        dropout: see `TransformerLayer`.
    """

    def __init__(self, out_channels: int, token_channels: int, *, dropout: float) -> None:
        super().__init__()
        self.layer = TransformerLayer(token_channels, dropout=dropout)
        self.decode = nn.Linear(NUM_MODALITIES * token_channels, NUM_MODALITIES * out_channels)

    def forward(self, tokens: Tensor, fused_modalities: Tensor, positions: Tensor) -> Tensor:
        """Attend.

        Args:
            tokens: of the intra-modal transformers, `[B, M, N, token_channels]`.
            fused_modalities: `[B, M]` bool; the tokens of the others are zero but for their positions, as published.
            positions: `[M, N, token_channels]`.

        Returns:
            `[B, M * out_channels, N]`.
        """
        kept = torch.where(fused_modalities[:, :, None, None], tokens, tokens.new_zeros(()))
        attended = self.layer(kept.flatten(1, 2), positions.flatten(0, 1))
        # As published, M neighbouring tokens of one modality, not the M modalities' tokens of one place, make a voxel.
        result: Tensor = self.decode(attended.reshape(*tokens.shape[::2], -1)).transpose(1, 2)
        return result
