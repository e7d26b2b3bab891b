// How far the render of a video is: its stages, its frames, and the time that is left.
import { useRenderProgressStream } from "@broker/client/react";
import { Card } from "./Card";
import { duration, written } from "./numbers";

const STAGES = ["preparing", "rendering", "encoding", "uploading", "complete"] as const;

export function RenderProgress({ jobId }: { jobId: string }) {
  const stream = useRenderProgressStream(jobId);
  const { progress, currentFrame, totalFrames, stage, fps, estimatedTime, isComplete } = stream;
  const percent = Math.round(progress * 100);
  return (
    <Card
      title="Render"
      about={jobId}
      className="render"
      stream={stream}
      idle={isComplete ? "finished" : undefined}
      actions={
        isComplete && (
          <button type="button" onClick={stream.reconnect}>
            Watch again
          </button>
        )
      }
    >
      {stage === null ? (
        <p className="empty">Nothing is rendered yet. The first event of the job appears here.</p>
      ) : (
        <>
          <p className="headline">
            <span className="value">{written(progress, "percent")}</span>
            <span className="about">
              {isComplete ? "done" : `${duration(estimatedTime ?? 0)} left`}
            </span>
          </p>
          <div
            className="bar"
            role="progressbar"
            aria-label={`Render of ${jobId}`}
            aria-valuenow={percent}
            aria-valuetext={`${written(progress, "percent")}, ${stage}`}
          >
            <div style={{ width: `${percent}%` }} />
          </div>
          <ol className="stages">
            {STAGES.map((name) => (
              <li
                key={name}
                className={STAGES.indexOf(name) < STAGES.indexOf(stage) || isComplete ? "past" : ""}
                aria-current={name === stage ? "step" : undefined}
              >
                {name}
              </li>
            ))}
          </ol>
          <p className="facts">
            <span>
              Frame {written(currentFrame, "count")} of {written(totalFrames, "count")}
            </span>
            <span>{fps ? `${written(fps, "number")} frames/s` : "no frames now"}</span>
          </p>
        </>
      )}
    </Card>
  );
}
