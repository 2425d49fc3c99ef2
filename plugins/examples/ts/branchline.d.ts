// The contract `branchline:plugin@0.1.0` for editors and `tsc`; `wit/plugin.wit` tells what each part means.

declare module 'branchline:plugin/host@0.1.0' {
  export type Level = 'debug' | 'info' | 'warn' | 'error';
  export function log(level: Level, message: string): void;
  export function config(): string;
  export function nowMs(): bigint;
  export function random(length: number): Uint8Array;
}

declare module 'branchline:plugin/types@0.1.0' {
  export interface Event {
    id: string;
    eventType: string;
    aggregateType: string;
    aggregateId: string;
    occurredAt: string;
    payload: string;
    metadata: string;
  }
  export interface Header {
    name: string;
    value: string;
  }
  export type Body = { tag: 'text'; val: string } | { tag: 'binary'; val: Uint8Array };
  export interface Request {
    headers: Header[];
    contentType: string;
    body: Body;
  }
  export type Verdict =
    | { tag: 'pass' }
    | { tag: 'replace'; val: Event }
    | { tag: 'send'; val: Request }
    | { tag: 'drop'; val: string }
    | { tag: 'dead-letter'; val: string };
  export interface Error {
    code: string;
    message: string;
    retryable: boolean;
  }
}
