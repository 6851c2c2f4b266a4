"""Networks: encoders, decoders, skip connections and segmenters."""
