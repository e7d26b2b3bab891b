// What the council says in the end: one number, and the three that are behind it.
import type { FinalScore } from "@broker/client/events";

interface Failure {
  model: string;
  error: string;
}

interface FinalScoresProps {
  score: FinalScore;
  failed: readonly Failure[];
}

export function FinalScores({ score, failed }: FinalScoresProps) {
  const parts: [string, number][] = [
    ["Psychology", score.psychology.composite],
    ["Hook", score.hookStrength.strength],
    ["Novelty", score.novelty.composite],
  ];
  return (
    <div className="final" role="status" aria-label="Final score">
      <p className="final-number">
        <span className="value">{score.composite.toFixed(1)}</span>{" "}
        <span className="about">of 100</span>
      </p>
      <dl className="meters">
        {parts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <span className="bar small" aria-hidden="true">
                <span style={{ width: `${value}%` }} />
              </span>
              <span className="value">{value.toFixed(1)}</span>
            </dd>
          </div>
        ))}
      </dl>
      {failed.length > 0 && (
        <p className="about">
          Without {failed.map(({ model }) => model).join(", ")}, which gave no verdict.
        </p>
      )}
    </div>
  );
}
