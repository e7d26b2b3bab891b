// A council of models that judges a script: side by side, thinking as it streams, then one score.
import { useState } from "react";
import { useCouncilScoreStream } from "@broker/client/react";
import { Card } from "./Card";
import { CouncilMember } from "./CouncilMember";
import { FinalScores } from "./FinalScores";
import { useStored } from "./useStored";

const FEATURES = { format: "vertical", seconds: 15 };
const URL_AT_FIRST = "https://example.com/videos/spring.mp4";
const TRANSCRIPT_AT_FIRST =
  "Your inbox at nine in the evening. Still there? We read the invoices, so you do not have to. " +
  "Try it with one invoice tonight.";

export function CouncilEvaluation() {
  // Kept over a reload, as the evaluation is: it goes on where it is.
  const [videoUrl, setVideoUrl] = useStored("council.videoUrl", URL_AT_FIRST);
  const [transcript, setTranscript] = useStored("council.transcript", TRANSCRIPT_AT_FIRST);
  const stream = useCouncilScoreStream(videoUrl, transcript, FEATURES);
  const { stages, currentStage, finalScore, result, isStreaming } = stream;
  const [wasStopped, setWasStopped] = useState(false);
  const isDone = currentStage === "complete";
  const canStart = videoUrl.trim() !== "" && transcript.trim() !== "";
  const idle = isStreaming ? undefined : isDone ? "finished" : wasStopped ? "stopped" : "ready";

  function start() {
    setWasStopped(false);
    stream.startStreaming();
  }

  function stop() {
    setWasStopped(true);
    stream.stopStreaming();
  }

  return (
    <Card
      title="Council"
      className="council"
      stream={{ ...stream, reconnect: start }}
      idle={stream.error ? undefined : idle}
    >
      <form
        className="script"
        onSubmit={(event) => {
          event.preventDefault();
          if (canStart && !isStreaming) start();
        }}
      >
        <label>
          Video
          <input
            type="url"
            required
            value={videoUrl}
            disabled={isStreaming}
            onChange={(event) => setVideoUrl(event.target.value)}
          />
        </label>
        <label className="wide">
          Transcript
          <textarea
            required
            rows={2}
            value={transcript}
            disabled={isStreaming}
            onChange={(event) => setTranscript(event.target.value)}
          />
        </label>
        {/* Two: a button that turns from Stop into Evaluate while it is clicked would submit. */}
        {isStreaming ? (
          <button key="stop" type="button" className="primary" onClick={stop}>
            Stop
          </button>
        ) : (
          <button key="start" type="submit" className="primary" disabled={!canStart}>
            Evaluate
          </button>
        )}
      </form>
      {stages.length === 0 ? (
        <p className="empty">
          {isStreaming
            ? "Waiting for the models."
            : "Four models judge the script side by side. Nothing is evaluated yet."}
        </p>
      ) : (
        <div className="members">
          {stages.map((stage) => (
            <CouncilMember key={stage.stage} stage={stage} isStreaming={isStreaming} />
          ))}
        </div>
      )}
      {currentStage === "aggregating" && <p className="empty">Putting the verdicts together.</p>}
      {finalScore && <FinalScores score={finalScore} failed={result?.failed ?? []} />}
    </Card>
  );
}
