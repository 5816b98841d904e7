"""The token head's embedding as F reads it: one embedding for a token as input and as answer.

Shapes: V = vocabulary, D entries of the head's embedding, E = embed_dim, `...` any leading
dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.context_network import normalise


class SharedEmbedding(nn.Module):
    """`A x`, x the token's row in an embedding that belongs to another module.

    What is learnt of a token as the answer then holds of it as the past too, which a network that is
    trained to predict would have to learn a second time from few examples. The rows stay the other
    module's: here they are no parameters, and are not saved.

    Args:
        source: the other module's embedding, (V, D).
        embed_dim: E.
        scale: factor on its rows that gives them unit variance.
    """

    def __init__(self, source: nn.Embedding, *, embed_dim: int, scale: float) -> None:
        super().__init__()
        self._source = (source,)  # a tuple, as a module would be registered
        self.scale = scale
        self.projection = nn.Linear(source.embedding_dim, embed_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds token ids: (...) integers to (..., E), not normalised."""
        return F.linear(self._source[0](tokens) * self.scale, self.projection.weight)

    @torch.no_grad()
    def start_from(self, vectors_VE: Tensor) -> None:
        """Sets rows and projection so that tokens are embedded as in (V, E) vectors, normalised.

        With D below E as closely as D dimensions allow. Where D is larger, the other entries of
        the rows stay as they are.
        """
        source = self._source[0].weight
        target_VE = normalise(vectors_VE.to(source))
        num_shared = min(source.shape[1], target_VE.shape[1])
        basis = torch.eye(num_shared, device=source.device, dtype=source.dtype)
        if num_shared < target_VE.shape[1]:
            # The leading directions, turned so that all entries of a row are alike in size.
            _, _, directions = torch.linalg.svd(target_VE, full_matrices=False)
            turned = torch.linalg.qr(torch.randn_like(basis)).Q
            basis = turned @ directions[:num_shared]
        self.projection.weight.zero_()
        self.projection.weight[:, :num_shared] = basis.T
        source[:, :num_shared] = target_VE @ basis.T / self.scale
