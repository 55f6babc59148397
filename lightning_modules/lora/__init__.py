"""LoRA adapters of many users on one frozen backbone."""
