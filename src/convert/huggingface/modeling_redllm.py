"""RedLLM and DecLLM (arXiv 2510.26622) for Transformers, as redllm exports them.

Shapes: B batch, S encoder length, T decoder length, V vocabulary. Padding is known by attention masks alone and may be
on either side; without a mask every token counts.
"""
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast, Seq2SeqLMOutput
from transformers.utils.generic import can_return_tuple

from .configuration_redllm import DecLLMConfig, RedLLMConfig
from .layers_redllm import (
    RedLLMRMSNorm,
    RedLLMStack,
    causal_visibility,
    padding_visibility,
    rotary_angles,
)

IGNORED = -100  # of labels


def as_padding(mask, name):
    """(B, S) bool, True where a token counts; None where all do."""
    if mask is None:
        return None
    if mask.dim() != 2:
        raise ValueError(f"{name} has {mask.dim()} dims: give (batch, length), 1 where a token counts")
    return mask.bool()


def index_of(padding, shape, device):
    """Place of each token among those of its sequence that count, (B, S); padding has that of a neighbour."""
    if padding is None:
        return torch.arange(shape[1], device=device).expand(shape)
    return (padding.long().cumsum(-1) - 1).clamp(min=0)


class RedLLMPreTrainedModel(PreTrainedModel):
    config_class = RedLLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["RedLLMLayer"]
    _skip_keys_device_placement = ["past_key_values"]

    @classmethod
    def from_pretrained(cls, *args, output_loading_info=False, **kwargs):
        """As of Transformers; besides, weights that are missing or of no use are errors, not warnings."""
        kwargs["ignore_mismatched_sizes"] = True  # they are told here, by name
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        wrong = {kind: sorted(map(str, info.get(kind) or ())) for kind in
                 ("missing_keys", "unexpected_keys", "mismatched_keys")}
        if any(wrong.values()):
            found = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys)}" for kind, keys in wrong.items() if keys)
            raise RuntimeError(f"these are not the weights of a {cls.__name__} of this config: {found}")
        return (model, info) if output_loading_info else model

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, RedLLMRMSNorm):
            nn.init.ones_(module.gain)

    def get_input_embeddings(self):
        return self.embedding

    def set_input_embeddings(self, embedding):
        self.embedding = embedding

    def get_output_embeddings(self):
        return self.embedding  # one matrix

    def logits_of(self, states, logits_to_keep):
        """(B, T, V) fp32 of the last `logits_to_keep` tokens; 0: of all. An index tensor chooses tokens."""
        if isinstance(logits_to_keep, int):
            states = states[:, -logits_to_keep:] if logits_to_keep > 0 else states
        else:
            states = states[:, logits_to_keep]
        return F.linear(states, self.embedding.weight).float() * self.config.d_model**-0.5

    def loss_of(self, logits, labels, num_items_in_batch):
        """Cross-entropy per label that counts; of the whole batch's labels where Trainer tells their number."""
        labels = labels.to(logits.device)
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        count = (labels != IGNORED).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return total / (count.to(total.device) if torch.is_tensor(count) else count)

    def check_cache(self, past_key_values):
        if past_key_values is not None and getattr(past_key_values, "is_compileable", False):
            raise ValueError("static caches are not supported: use the default, cache_implementation = 'dynamic'")

    def resolve(self, output_attentions, output_hidden_states, use_cache):
        return (
            self.config.output_attentions if output_attentions is None else output_attentions,
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            (self.config.use_cache and not self.training) if use_cache is None else use_cache,
        )


class RedLLMEncoder(RedLLMStack):
    """Reads in both directions."""

    main_input_name = "input_ids"  # generate() asks for it

    def __init__(self, config, embedding):
        super().__init__(config, config.encoder_layers)
        self.lookup = (embedding,)  # the model's; in a tuple, so that its weight is not this module's too

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, output_attentions=False,
                output_hidden_states=False, return_dict=True, **kwargs):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.lookup[0](input_ids) if inputs_embeds is None else inputs_embeds
        padding = as_padding(attention_mask, "attention_mask")
        angles = rotary_angles(index_of(padding, x.shape[:2], x.device), self.config)
        x, states, weights, _ = self.run(
            x, padding_visibility(padding), angles, output_attentions=bool(output_attentions),
            output_hidden_states=bool(output_hidden_states),
        )
        result = BaseModelOutput(last_hidden_state=x, hidden_states=states, attentions=weights)
        return result if return_dict else result.to_tuple()


class RedLLMForConditionalGeneration(RedLLMPreTrainedModel, GenerationMixin):
    """The encoder-decoder. Rotary positions of the decoder go on where the sequence's own encoder input ends."""

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = RedLLMEncoder(config, self.embedding)
        self.decoder = RedLLMStack(config, config.decoder_layers, cross=True)
        self.post_init()

    def set_input_embeddings(self, embedding):
        self.embedding = embedding
        self.encoder.lookup = (embedding,)

    def get_encoder(self, *args, **kwargs):
        return self.encoder

    def get_decoder(self, *args, **kwargs):
        return self.decoder

    def inputs_of_labels(self, labels):
        """Labels (B, T) shifted right behind the start token, and which of them count (None: all up to the last)."""
        started = (labels != IGNORED).cumsum(-1) > 0  # labels may be padded on the left
        inputs = F.pad(labels[:, :-1], (1, 0), value=IGNORED)
        first = started & ~F.pad(started[:, :-1], (1, 0), value=False)
        inputs = inputs.masked_fill(first, self.config.decoder_start_token_id)
        inputs = inputs.masked_fill(inputs == IGNORED, self.config.pad_token_id)
        return inputs, None if bool(started.all()) else started

    def prepare_decoder_input_ids_from_labels(self, labels):
        return self.inputs_of_labels(labels)[0]

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        past_key_values=None,
        inputs_embeds=None,
        decoder_inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        logits_to_keep=0,
        **kwargs,
    ):
        """input_ids (B, S), attention_mask (B, S), decoder_input_ids (B, T) beginning with the start token, or labels
        (B, T) alone, of which they are made. A decoder_attention_mask covers what is cached too."""
        attentions, states, use_cache = self.resolve(output_attentions, output_hidden_states, use_cache)
        self.check_cache(past_key_values)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, output_attentions=attentions, output_hidden_states=states
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        memory = encoder_outputs.last_hidden_state
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, made_mask = self.inputs_of_labels(labels)
            decoder_attention_mask = made_mask if decoder_attention_mask is None else decoder_attention_mask
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("give either decoder_input_ids or decoder_inputs_embeds, or labels")
        x = self.embedding(decoder_input_ids) if decoder_inputs_embeds is None else decoder_inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        decoded, decoder_states, weights, cross_weights = self.decode(
            x, decoder_attention_mask, memory, attention_mask, past_key_values if use_cache else None, attentions,
            states,
        )
        logits = self.logits_of(decoded, logits_to_keep)
        loss = None if labels is None else self.loss_of(logits, labels, kwargs.get("num_items_in_batch"))
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            decoder_hidden_states=decoder_states,
            decoder_attentions=weights,
            cross_attentions=cross_weights,
            encoder_last_hidden_state=memory,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def decode(self, x, decoder_attention_mask, memory, attention_mask, past_key_values, attentions, states):
        """x (B, T, d), embedded: the decoder's new tokens; memory (B, S, d)."""
        num_queries = x.shape[1]
        num_keys = num_queries + (0 if past_key_values is None else past_key_values.get_seq_length())
        padding = as_padding(decoder_attention_mask, "decoder_attention_mask")
        memory_padding = as_padding(attention_mask, "attention_mask")
        index = index_of(padding, (x.shape[0], num_keys), x.device)
        positions = index[:, num_keys - num_queries :]
        if self.config.continuous_positions:
            lengths = memory.shape[1] if memory_padding is None else memory_padding.sum(-1, keepdim=True)
            positions = positions + lengths
        return self.decoder.run(
            x,
            causal_visibility(num_queries, num_keys, padding, x.device),
            rotary_angles(positions, self.config),
            memory,
            padding_visibility(memory_padding),
            rotary_angles(index_of(memory_padding, memory.shape[:2], x.device), self.config),
            past_key_values,
            attentions,
            states,
        )


class DecLLMForCausalLM(RedLLMPreTrainedModel, GenerationMixin):
    """The decoder-only model. input_ids begin with <s>, which the tokenizer puts there."""

    config_class = DecLLMConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.decoder = RedLLMStack(config, config.decoder_layers)
        self.post_init()

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        if self.config.bidirectional_input and kwargs.get("prefix_lengths") is None:
            past = kwargs.get("past_key_values")
            if not kwargs.get("is_first_iteration") and (past is None or past.get_seq_length() == 0):
                raise ValueError("generation without a cache: give prefix_lengths, the number of tokens of each prompt")
            mask = kwargs.get("attention_mask")
            kwargs["prefix_lengths"] = (
                torch.full(input_ids.shape[:1], input_ids.shape[1], device=input_ids.device)
                if mask is None else mask.sum(-1)
            )
        return super().prepare_inputs_for_generation(input_ids, **kwargs)

    def prefix_of(self, labels, prefix_lengths, padding, is_cached):
        """How many tokens of each sequence see each other (B); None: the model is causal, or goes on behind them."""
        if not self.config.bidirectional_input or is_cached:
            return None
        if prefix_lengths is not None:
            return prefix_lengths
        if labels is None:
            raise ValueError(
                "this model reads its input in both directions (BiAttn): give prefix_lengths (B), the number of tokens "
                "of each input with <s>, or labels, whose leading -100 are the input"
            )
        counts = labels != IGNORED
        before = counts.cumsum(-1) == 0
        return (before if padding is None else before & padding).sum(-1)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        prefix_lengths=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        logits_to_keep=0,
        **kwargs,
    ):
        """input_ids (B, T); attention_mask covers what is cached too. labels (B, T) are input_ids, -100 where no loss
        is wanted: they are shifted here, label t is predicted from token t - 1."""
        attentions, states, use_cache = self.resolve(output_attentions, output_hidden_states, use_cache)
        self.check_cache(past_key_values)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        if not use_cache:
            past_key_values = None
        num_queries = x.shape[1]
        num_keys = num_queries + (0 if past_key_values is None else past_key_values.get_seq_length())
        padding = as_padding(attention_mask, "attention_mask")
        index = index_of(padding, (x.shape[0], num_keys), x.device)
        if position_ids is None:
            position_ids = index[:, num_keys - num_queries :]
        prefix = self.prefix_of(labels, prefix_lengths, padding, num_keys > num_queries)
        x, hidden, weights, _ = self.decoder.run(
            x,
            causal_visibility(num_queries, num_keys, padding, x.device, index, prefix),
            rotary_angles(position_ids, self.config),
            past_key_values=past_key_values,
            output_attentions=attentions,
            output_hidden_states=states,
        )
        logits = self.logits_of(x, logits_to_keep)
        loss = None
        if labels is not None:
            loss = self.loss_of(logits[:, :-1], labels[:, 1:], kwargs.get("num_items_in_batch"))
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=past_key_values, hidden_states=hidden, attentions=weights
        )
