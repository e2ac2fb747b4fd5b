"""A small stand-in for a vLLM server: its OpenAI-compatible API over HTTP, a tiny model of transformers behind it.

It answers what vLLM 0.10 answers to the requests that the rollout backend sends (completions of token ids with token
ids and log-probabilities, loading and unloading of adapters), computed by transformers' own forward pass without a
cache, so that its numbers are independent of the house's. Nothing else of vLLM is imitated.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


class FakeVllm:
    """Serves the base model in `folder`; `raw` gives log-probabilities as at temperature 1, which is vLLM's default."""

    def __init__(self, folder, raw=False):
        self.folder, self.raw = folder, raw
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.models, self.requests, self.lock = {}, [], threading.Lock()
        self.answer_with = None
        """(status, body) that is answered to completions instead."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append((self.path, body, self.headers.get("Authorization")))
                    status, answer = outer.handle(self.path, body)
                data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def handle(self, path, body):
        if path == "/v1/load_lora_adapter":
            base = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
            self.models[body["lora_name"]] = PeftModel.from_pretrained(base, body["lora_path"]).eval()
            return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
        if path == "/v1/unload_lora_adapter":
            del self.models[body["lora_name"]]
            return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
        if self.answer_with is not None:
            return self.answer_with
        if body["model"] not in self.models:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        return 200, self.complete(self.models[body["model"]], body)

    @torch.no_grad()
    def complete(self, model, body):
        random = torch.Generator().manual_seed(body["seed"])
        prompt, tokens, logprobs, reason = list(body["prompt"]), [], [], "length"
        while len(tokens) < body["max_tokens"] and reason == "length":
            logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, -1].float()
            scaled = (logits / body["temperature"]).log_softmax(-1)
            if len(tokens) < body["min_tokens"]:
                scaled[body["stop_token_ids"]] = -torch.inf
            token = int(torch.multinomial(scaled.exp(), 1, generator=random))
            tokens.append(token)
            logprobs.append(float((logits.log_softmax(-1) if self.raw else scaled)[token]))
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            if token in body["stop_token_ids"] or any(string in text for string in body["stop"]):
                reason = "stop"
        choice = {"index": 0, "finish_reason": reason, "token_ids": tokens, "text": "..."}
        return {"object": "text_completion", "choices": [choice | {"logprobs": {"token_logprobs": logprobs}}]}
