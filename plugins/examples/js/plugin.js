// Drops small orders, and makes of the others a message that Slack understands.
import { config } from 'branchline:plugin/host@0.1.0';

export function handle(event) {
  const { atLeast } = JSON.parse(config());
  const { amount, currency } = JSON.parse(event.payload);
  if (!Number.isFinite(amount)) {
    // A failed attempt; `retryable: false` sends it to the dead letters at once.
    throw { code: 'invalid-payload', message: 'the amount is not a number', retryable: false };
  }
  if (amount < atLeast) return { tag: 'drop', val: `an order below ${atLeast}` };
  const text = `Order ${event.aggregateId}: ${amount} ${currency}`;
  const body = { tag: 'text', val: JSON.stringify({ text }) };
  return { tag: 'send', val: { headers: [], contentType: 'application/json', body } };
}

// Asked once when the router reads its config. A text that is thrown refuses it.
export function validateConfig(config) {
  if (!Number.isInteger(JSON.parse(config).atLeast)) throw '`atLeast` must be a whole number';
}
