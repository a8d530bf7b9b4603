"""The contrastive formulas, pair by pair, in float64."""

import numpy as np


def unit(x):
  x = np.asarray(x, np.float64)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_sum(logits):
  top = max(logits)
  return np.log(sum(np.exp(s - top) for s in logits)) + top


def slow_nt_xent(a, b, temperature):
  a, b = unit(a), unit(b)
  z = list(a) + list(b)
  total = 0.0
  for i in range(len(z)):
    j = (i + len(a)) % len(z)
    others = [np.dot(z[i], z[k]) / temperature for k in range(len(z)) if k != i]
    total += log_sum(others) - np.dot(z[i], z[j]) / temperature
  return total / len(z)


def slow_info_nce(query, key, queue, temperature):
  query, key, queue = unit(query), unit(key), unit(queue)
  total = 0.0
  for q, k in zip(query, key, strict=True):
    logits = [np.dot(q, k) / temperature] + [np.dot(q, n) / temperature for n in queue]
    total += log_sum(logits) - logits[0]
  return total / len(query)


def slow_nats(query, key, scale):
  return [log_sum([scale * np.dot(q, k) for k in key]) - scale * np.dot(q, key[i]) for i, q in enumerate(query)]


def slow_softmax(image, text, scale, weight=0.5):
  image, text = unit(image), unit(text)
  return weight * np.mean(slow_nats(image, text, scale)) + (1 - weight) * np.mean(slow_nats(text, image, scale))


def slow_sigmoid(image, text, scale, bias):
  image, text = unit(image), unit(text)
  total = 0.0
  for i in range(len(image)):
    for j in range(len(text)):
      logit = scale * np.dot(image[i], text[j]) + bias
      total += np.logaddexp(0.0, -logit if i == j else logit)
  return total / len(image)


def slow_accuracy(a, b):
  a, b = unit(a), unit(b)
  found = 0
  for i in range(len(a)):
    others = [z for k in range(len(a)) if k != i for z in (a[k], b[k])]
    for anchor, partner in ((a[i], b[i]), (b[i], a[i])):
      found += all(np.dot(anchor, partner) > np.dot(anchor, z) for z in others)
  return found / (2 * len(a))
