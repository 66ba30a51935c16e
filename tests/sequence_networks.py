"""Networks of sequences, small: one that reads lines of text, and one for speech as DeepSpeech 2 is."""

from __future__ import annotations

import torch
from torch import nn


class CRNN(nn.Module):
    """Convolutions over an image of a line, whose columns become a sequence: BatchNorm, LSTM, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
        )
        self.bn = nn.BatchNorm1d(16)
        self.rnn = nn.LSTM(16, 5, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(10, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stack(x)
        n, c, h, w = x.shape
        x = self.bn(x.reshape(n, c * h, w)).permute(0, 2, 1)
        x, _ = self.rnn(x)
        return self.fc(x).log_softmax(-1)


class SequenceWise(nn.Module):
    """A module of (samples, channels) over every step of (time, samples, channels)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t, n = x.size(0), x.size(1)
        return self.module(x.view(t * n, -1)).view(t, n, -1)


class RecurrentLayer(nn.Module):
    """A BatchNorm but for the first layer, and a GRU whose two directions are added up."""

    def __init__(self, size: int, hidden: int, *, normalises: bool) -> None:
        super().__init__()
        self.batch_norm = SequenceWise(nn.BatchNorm1d(size)) if normalises else None
        self.rnn = nn.GRU(size, hidden, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        x, _ = self.rnn(x)
        return x.view(x.size(0), x.size(1), 2, -1).sum(2).view(x.size(0), x.size(1), -1)


class DeepSpeech(nn.Module):
    """Convolutions over a spectrogram, recurrent layers with sequence-wise BatchNorms, and a Linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, (5, 3), stride=(2, 2), padding=(2, 1)),
            nn.BatchNorm2d(4),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1),
            nn.BatchNorm2d(4),
            nn.Hardtanh(0, 20, inplace=True),
        )
        self.rnns = nn.Sequential(
            RecurrentLayer(16, 6, normalises=False),
            RecurrentLayer(6, 6, normalises=True),
            RecurrentLayer(6, 6, normalises=True),
        )
        self.fc = SequenceWise(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 9, bias=False)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        n, c, f, t = x.size()
        x = x.view(n, c * f, t).transpose(1, 2).transpose(0, 1).contiguous()
        return self.fc(self.rnns(x)).transpose(0, 1).softmax(-1)


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "CRNN": (CRNN, (2, 1, 8, 12)),
    "DeepSpeech": (DeepSpeech, (2, 1, 16, 14)),
}
"""Each with the shape of an input: samples, one channel, height or frequencies, width or time."""
