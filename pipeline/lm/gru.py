"""A GRU that trains fast on a CPU, where PyTorch has a fused kernel for the LSTM only: a hand-written backward pass."""

import torch
from torch import Tensor, nn

from pipeline.lm.device import product_dtype


def gru_written_out(layer: nn.GRU, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """One layer of `nn.GRU`: equal to `layer(x, state)` up to rounding.

    x [time, batch, input], state [1, batch, hidden] or None for zeros -> h [time, batch, hidden], state. With r, z, n
    the reset gate, the update gate and the candidate (Cho et al. 2014, arXiv:1406.1078, the reset gate applied after
    the recurrent product as in cuDNN), x the input and h' the previous state::

        r = sigmoid(W_ir x + b_ir + W_hr h' + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h' + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h' + b_hn))
        h = (1 - z) * n + z * h'
    """
    if state is None:
        state = x.new_zeros(1, x.shape[1], layer.hidden_size)
    h = _GRU.apply(x, state[0], layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    return h, h[-1:]


class _GRU(torch.autograd.Function):
    """Only what depends on the previous state is computed step by step; everything else for all times at once.

    The products for all times are in autocast's type. Those with a single state are in float32, too small to gain.
    """

    @staticmethod
    def forward(ctx, x, h0, w_input, w_state, b_input, b_state):  # type: ignore[no-untyped-def]
        time, batch, _ = x.shape
        hidden = w_state.shape[1]
        dtype = product_dtype(x)
        x, w_input = x.to(dtype), w_input.to(dtype)
        gates = torch.add(x @ w_input.t(), b_input)  # [time, batch, 3 * hidden]: r, z, n in the end
        from_state = torch.empty_like(gates)  # W_h h' + b_h
        h = gates.new_empty(time + 1, batch, hidden)
        h[0] = h0

        r, z, n = gates.chunk(3, dim=2)
        rz, rz_from_state = gates[..., : 2 * hidden], from_state[..., : 2 * hidden]
        n_from_state = from_state[..., 2 * hidden :]
        w_state_t = w_state.t().contiguous()
        for h_before, h_t, from_state_t, rz_t, rz_from_state_t, r_t, z_t, n_t, n_from_state_t in zip(
            *(x.unbind() for x in (h[:-1], h[1:], from_state, rz, rz_from_state, r, z, n, n_from_state)), strict=True
        ):
            torch.addmm(b_state, h_before, w_state_t, out=from_state_t)
            rz_t.add_(rz_from_state_t).sigmoid_()
            n_t.addcmul_(r_t, n_from_state_t).tanh_()
            torch.lerp(n_t, h_before, z_t, out=h_t)
        ctx.save_for_backward(x, w_input, w_state, gates, n_from_state, h)
        return h[1:]

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[no-untyped-def]
        x, w_input, w_state, gates, n_from_state, h = ctx.saved_tensors
        r, z, n = gates.chunk(3, dim=2)
        # Factors from the gradient of h to those of n's pre-activation and of the products with h' for r, z, n.
        to_n = (1 - z) * (1 - n * n)
        to_from_state = torch.stack([to_n * n_from_state * r * (1 - r), (h[:-1] - n) * z * (1 - z), to_n * r], dim=2)
        d_from_state = torch.empty_like(to_from_state)  # [time, batch, 3, hidden]
        d_h = torch.empty_like(d_out)
        d_state = torch.zeros_like(h[0])
        for d_out_t, d_h_t, z_t, to_from_state_t, d_from_state_t in zip(
            *(reversed(x.unbind()) for x in (d_out, d_h, z, to_from_state, d_from_state)), strict=True
        ):
            torch.add(d_out_t, d_state, out=d_h_t)
            torch.mul(to_from_state_t, d_h_t.unsqueeze(1), out=d_from_state_t)
            d_state = torch.addmm(d_h_t * z_t, d_from_state_t.flatten(1), w_state)

        dtype = x.dtype
        d_gates = d_from_state.clone()
        d_gates[:, :, 2] = d_h * to_n
        d_from_state, d_gates = d_from_state.flatten(2).flatten(0, 1), d_gates.flatten(2).flatten(0, 1)
        d_w_state = (d_from_state.to(dtype).t() @ h[:-1].flatten(0, 1).to(dtype)).to(h.dtype)
        d_sums = d_gates.to(dtype)
        d_w_input = (d_sums.t() @ x.flatten(0, 1)).to(h.dtype)
        d_x = (d_sums @ w_input).to(h.dtype).view_as(x)
        return d_x, d_state, d_w_input, d_w_state, d_gates.sum(0), d_from_state.sum(0)
