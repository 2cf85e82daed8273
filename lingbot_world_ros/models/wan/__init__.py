# SPDX-License-Identifier: Apache-2.0
"""LingBot-World: the network, its checkpoints and the streaming around it. Needs torch."""
