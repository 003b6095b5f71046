"""Configurations of RedLLM (encoder-decoder) and DecLLM (decoder-only), as redllm exports them (arXiv 2510.26622)."""
from transformers import PretrainedConfig

OUTPUT_NORMS = ("none", "head", "concat", "after_wo")


class RedLLMBaseConfig(PretrainedConfig):
    """What both models are told. Names are those of redllm's section [model]."""

    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "decoder_layers",
    }

    def __init__(
        self,
        vocab_size=32768,
        d_model=1024,
        d_ff=4096,
        num_heads=8,
        head_dim=128,
        decoder_layers=8,
        rope_base=10000.0,
        norm_epsilon=1e-6,
        max_position_embeddings=2048,
        use_cache=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        tie_word_embeddings=True,
        **kwargs,
    ):
        if not tie_word_embeddings:
            raise ValueError("tie_word_embeddings = false: these models have one matrix for input and output")
        if head_dim % 2 != 0:
            raise ValueError(f"head_dim = {head_dim}: must be even, rotary positions turn pairs of elements")
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.d_ff = d_ff
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.decoder_layers = decoder_layers
        self.rope_base = rope_base
        self.norm_epsilon = norm_epsilon
        # Lengths of training. Rotary positions have no end; tools that cut texts look here.
        self.max_position_embeddings = max_position_embeddings
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=True, **kwargs)
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id

    def get_text_config(self, decoder=None, encoder=None):
        return self


class RedLLMConfig(RedLLMBaseConfig):
    model_type = "redllm"

    def __init__(
        self,
        encoder_layers=3,
        decoder_layers=3,
        attention_output_norm="head",
        continuous_positions=True,
        decoder_start_token_id=1,
        is_encoder_decoder=True,
        **kwargs,
    ):
        if attention_output_norm not in OUTPUT_NORMS:
            raise ValueError(f"attention_output_norm = {attention_output_norm!r}: must be one of {OUTPUT_NORMS}")
        self.encoder_layers = encoder_layers
        self.attention_output_norm = attention_output_norm
        self.continuous_positions = continuous_positions
        super().__init__(decoder_layers=decoder_layers, is_encoder_decoder=True, **kwargs)
        self.decoder_start_token_id = decoder_start_token_id


class DecLLMConfig(RedLLMBaseConfig):
    model_type = "decllm"

    def __init__(self, bidirectional_input=False, **kwargs):
        # The first tokens see each other in both directions (BiAttn); forward() is told how many.
        self.bidirectional_input = bidirectional_input
        self.attention_output_norm = "none"
        kwargs.pop("attention_output_norm", None)
        super().__init__(**kwargs)
