// One model of the council: what it thinks, and its score or why it has none.
import { useLayoutEffect, useRef } from "react";
import type { useCouncilScoreStream } from "@broker/client/react";

type CouncilStage = ReturnType<typeof useCouncilScoreStream>["stages"][number];

interface CouncilMemberProps {
  stage: CouncilStage;
  isStreaming: boolean;
}

export function CouncilMember({ stage, isStreaming }: CouncilMemberProps) {
  const { model, thinking, score, reasoning, error, isComplete } = stage;
  const name = model ?? stage.stage;
  const isThinking = isStreaming && !isComplete;
  const state = error ? "failed" : isThinking ? (thinking ? "thinking" : "asked") : "unfinished";
  return (
    <article className={`member ${isThinking ? "thinking" : state}`} aria-label={name}>
      <header>
        <h3>{name}</h3>
        <span className="member-state" role="status">
          {score === null ? state : <strong className="value">{Math.round(score)}</strong>}
        </span>
      </header>
      <div className="bar small" aria-hidden="true">
        <div style={{ width: `${score ?? 0}%` }} />
      </div>
      <Thinking text={thinking} label={`What ${name} thinks`} />
      {(error ?? reasoning) && <p className="reason">{error ?? reasoning}</p>}
    </article>
  );
}

/** Follows the text's end, unless somebody has scrolled back in it. */
function Thinking({ text, label }: { text: string; label: string }) {
  const box = useRef<HTMLDivElement>(null);
  const isFollowing = useRef(true);
  useLayoutEffect(() => {
    if (box.current && isFollowing.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  return (
    <div
      ref={box}
      className="thoughts"
      role="region"
      aria-label={label}
      tabIndex={0}
      onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
        isFollowing.current = scrollHeight - scrollTop - clientHeight < 24;
      }}
    >
      {text.trimEnd()}
    </div>
  );
}
