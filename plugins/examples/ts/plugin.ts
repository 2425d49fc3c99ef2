// Drops small orders, and makes of the others a message that Slack understands.
import { config } from 'branchline:plugin/host@0.1.0';
import type { Error, Event, Verdict } from 'branchline:plugin/types@0.1.0';

interface Config {
  atLeast: number;
}

interface Order {
  amount: number;
  currency: string;
}

export function handle(event: Event): Verdict {
  const { atLeast } = JSON.parse(config()) as Config;
  const { amount, currency } = JSON.parse(event.payload) as Order;
  if (!Number.isFinite(amount)) {
    // A failed attempt; `retryable: false` sends it to the dead letters at once.
    throw { code: 'invalid-payload', message: 'the amount is not a number', retryable: false } satisfies Error;
  }
  if (amount < atLeast) return { tag: 'drop', val: `an order below ${atLeast}` };
  const text = `Order ${event.aggregateId}: ${amount} ${currency}`;
  const body = { tag: 'text', val: JSON.stringify({ text }) } as const;
  return { tag: 'send', val: { headers: [], contentType: 'application/json', body } };
}

// Asked once when the router reads its config. A text that is thrown refuses it.
export function validateConfig(config: string): void {
  if (!Number.isInteger(JSON.parse(config).atLeast)) throw '`atLeast` must be a whole number';
}
