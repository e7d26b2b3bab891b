// A campaign's numbers as they come, each with how far it has moved and its course of late.
import { useCampaignMetricsStream } from "@broker/client/react";
import type { CampaignChange, CampaignValues } from "@broker/client/events";
import { Card } from "./Card";
import { movement, timeOf, written, type Unit } from "./numbers";
import { Sparkline } from "./Sparkline";
import { useTrail } from "./useTrail";

interface Tile {
  name: keyof CampaignValues;
  label: string;
  unit: Unit;
  /** Whether more of it is neither good nor bad. */
  isNeutral?: boolean;
}

const TILES: Tile[] = [
  { name: "impressions", label: "Impressions", unit: "count" },
  { name: "clicks", label: "Clicks", unit: "count" },
  { name: "ctr", label: "Click-through rate", unit: "share" },
  { name: "spend", label: "Spend", unit: "money", isNeutral: true },
  { name: "conversions", label: "Conversions", unit: "number" },
  { name: "roas", label: "Return on ad spend", unit: "number" },
];
const TRAIL_LENGTH = 60;

export function CampaignMetrics({ campaignId }: { campaignId: string }) {
  const stream = useCampaignMetricsStream(campaignId);
  const { metrics, change, updatedAt, startStreaming, stopStreaming } = stream;
  const trail = useTrail(metrics, TRAIL_LENGTH, campaignId);
  const isOff = stream.status === "idle";
  return (
    <Card
      title="Campaign"
      about={updatedAt ? `${campaignId}, ${timeOf(updatedAt)}` : campaignId}
      className="campaign"
      stream={stream}
      idle={isOff ? "paused" : undefined}
      actions={
        <button type="button" onClick={isOff ? startStreaming : stopStreaming}>
          {isOff ? "Go on" : "Pause"}
        </button>
      }
    >
      {metrics === null ? (
        <p className="empty">No numbers yet. They appear with the campaign's next event.</p>
      ) : (
        <dl className="tiles">
          {TILES.map(({ name, label, unit, isNeutral }) => (
            <div key={name} className="tile">
              <dt>{label}</dt>
              <dd>
                <span className="value">{written(metrics[name], unit)}</span>
                <Movement
                  value={change?.[name as keyof CampaignChange]}
                  unit={unit}
                  isNeutral={isNeutral ?? false}
                />
              </dd>
              <dd aria-hidden="true">
                <Sparkline values={trail.map((values) => values[name])} />
              </dd>
            </div>
          ))}
        </dl>
      )}
    </Card>
  );
}

interface MovementProps {
  value: number | undefined;
  unit: Unit;
  isNeutral: boolean;
}

function Movement({ value, unit, isNeutral }: MovementProps) {
  if (value === undefined) return null;
  const direction = isNeutral || value === 0 ? "" : value > 0 ? "up" : "down";
  return <span className={`movement ${direction}`}>{movement(value, unit)}</span>;
}
