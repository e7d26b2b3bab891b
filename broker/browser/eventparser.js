// The parser of a text/event-stream: text in, events out. Source: WHATWG HTML, 9.2.6.
//
// Laws: lines end with CR, LF or CRLF, however the chunks are cut. An id with NUL is passed over,
// as is a `retry` that is no number. A block without data is no event, but its id counts.
// Bound: `EVENT_MAX` characters of one event; over it the stream cannot be read on.

const EVENT_MAX = 16 * 1024 * 1024;

/** Reads one stream. */
export class EventParser {
  /** What the server wants as the wait before the next attempt. @type {number | undefined} */
  retryMs;
  #rest = "";
  #data = "";
  #type = "";
  #id;
  #endedWithCr = false;
  #onEvent;

  /**
   * @param {string | undefined} lastEventId what events have as id until one has its own
   * @param {(event: { type: string, data: string, id: string }) => void} onEvent
   */
  constructor(lastEventId, onEvent) {
    this.#id = lastEventId ?? "";
    this.#onEvent = onEvent;
  }

  /** @param {string} text decoded, without the mark at its beginning */
  feed(text) {
    if (!text) return;
    const isSecondHalf = this.#endedWithCr && text[0] === "\n";
    this.#endedWithCr = text.endsWith("\r");
    const lines = (this.#rest + (isSecondHalf ? text.slice(1) : text)).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
    if (this.#rest.length + this.#data.length > EVENT_MAX) {
      throw new RangeError(`an event of more than ${EVENT_MAX} characters`);
    }
  }

  /** @param {string} line */
  #line(line) {
    if (!line) return this.#dispatch();
    const [, field, value] = /^([^:]*):? ?([^]*)$/.exec(line) ?? [];
    if (field === "data") this.#data += `${value}\n`;
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }

  #dispatch() {
    const [data, type] = [this.#data, this.#type];
    this.#data = this.#type = "";
    if (data) this.#onEvent({ type: type || "message", data: data.slice(0, -1), id: this.#id });
  }
}
