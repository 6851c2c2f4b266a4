"""Export: ONNX files, int8, model hubs and the model card."""
