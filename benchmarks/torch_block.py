"""The transformer block both benchmarks give PyTorch: pre-norm, fused qkv, scaled_dot_product_attention, exact GELU."""

from torch import nn
from torch.nn import functional


class Block(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x))."""

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
    self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
    self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

  def forward(self, x):
    """Returns f32[B,N,D]."""
    b, n, d = x.shape
    q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
    x = x + self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
    return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))
