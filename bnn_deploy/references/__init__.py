"""What a bundle is compared with: the model's logits, and what every layer of it computes.

``whole_model`` gives logits; ``onnxruntime_layers``, ``torch_layers`` and ``golden`` the values of the layers (``layer_values``).
"""
