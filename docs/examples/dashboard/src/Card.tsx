// A card: a heading, what is shown, and the state of what it comes from.
import { useEffect, useId, useState, type ReactNode } from "react";

/** What every hook of the broker says of its stream, besides the events. */
export interface StreamState {
  isConnected: boolean;
  isLoading: boolean;
  error: Error | null;
  attempt: number;
  nextRetryAt: number | null;
  /** Events may be missing. */
  gap?: { reason: string; count?: number } | null;
  reconnect: () => void;
}

interface CardProps {
  title: string;
  about?: string;
  className: string;
  stream: StreamState;
  /** What to say while nothing is connected, because nothing has to be. */
  idle?: string | undefined;
  actions?: ReactNode;
  children: ReactNode;
}

export function Card({ title, about, className, stream, idle, actions, children }: CardProps) {
  const id = useId();
  return (
    <section className={`card ${className}`} aria-labelledby={id}>
      <header className="card-header">
        <h2 id={id}>{title}</h2>
        {about && <span className="about">{about}</span>}
        <Connection stream={stream} idle={idle} />
        {actions}
      </header>
      <Trouble stream={stream} />
      {children}
    </section>
  );
}

function Connection({ stream, idle }: { stream: StreamState; idle: string | undefined }) {
  const seconds = useSecondsUntil(stream.nextRetryAt);
  const [kind, text] =
    idle !== undefined
      ? ["idle", idle]
      : stream.isConnected
        ? ["live", "live"]
        : stream.nextRetryAt !== null
          ? ["waiting", `again in ${seconds} s (attempt ${stream.attempt})`]
          : stream.error
            ? ["failed", "failed"]
            : stream.isLoading
              ? ["waiting", "connecting"]
              : ["idle", "off"];
  return <span className={`connection ${kind}`}>{text}</span>;
}

/** What a person has to know: an error with what to do, or events that may be missing. */
function Trouble({ stream }: { stream: StreamState }) {
  const [seen, setSeen] = useState<StreamState["gap"]>(null);
  const { error, gap } = stream;
  return (
    <>
      {error && (
        <p className="note bad" role="alert">
          <span>{error.message}</span>
          <button type="button" onClick={stream.reconnect}>
            Try again
          </button>
        </p>
      )}
      {gap && gap !== seen && (
        <p className="note" role="status">
          <span>
            Events may be missing here ({gap.reason.replaceAll("_", " ")}
            {gap.count ? `, ${gap.count}` : ""}).
          </span>
          <button type="button" onClick={() => setSeen(gap)}>
            Got it
          </button>
        </p>
      )}
    </>
  );
}

function useSecondsUntil(time: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (time === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [time]);
  return time === null ? 0 : Math.max(0, Math.ceil((time - now) / 1000));
}
