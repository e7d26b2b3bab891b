// An A/B test: the variants' rates with how sure they are, and the winner once there is one.
import { useABTestStream } from "@broker/client/react";
import { Card } from "./Card";
import { wilson } from "./interval";
import { IntervalChart } from "./IntervalChart";
import { timeOf, written } from "./numbers";

export function ABTest({ testId }: { testId: string }) {
  const stream = useABTestStream(testId);
  const { winner, updatedAt } = stream;
  const confidence = winner && written(winner.statisticalSignificance, "share");
  const variants = [...stream.variants].sort((a, b) => a.variantId.localeCompare(b.variantId));
  const rows = variants.map(({ variantId, metrics, isWinner }) => ({
    name: variantId,
    interval: wilson(metrics.clicks, metrics.impressions),
    isWinner,
  }));
  return (
    <Card
      title="A/B test"
      about={updatedAt ? `${testId}, ${timeOf(updatedAt)}` : testId}
      className="abtest"
      stream={stream}
    >
      {variants.length === 0 ? (
        <p className="empty">No results yet. They appear with the test's next event.</p>
      ) : (
        <>
          <p className="verdict" role="status">
            {winner ? `Variant ${winner.variantId} wins, ${confidence} sure` : "No winner yet"}
          </p>
          <IntervalChart rows={rows} label="Click-through rate by variant" />
          <div className="scroller" tabIndex={0} role="region" aria-label="Results by variant">
            <table>
              <thead>
                <tr>
                  <th scope="col">Variant</th>
                  <th scope="col">Shown</th>
                  <th scope="col">Clicks</th>
                  <th scope="col">Rate</th>
                  <th scope="col">Conversions</th>
                </tr>
              </thead>
              <tbody>
                {variants.map(({ variantId, metrics, isWinner }) => (
                  <tr key={variantId}>
                    <th scope="row">
                      {variantId}
                      {isWinner && <span className="chip good">winner</span>}
                    </th>
                    <td>{written(metrics.impressions, "count")}</td>
                    <td>{written(metrics.clicks, "count")}</td>
                    <td>{written(metrics.ctr, "share")}</td>
                    <td>{written(metrics.conversions, "number")}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </Card>
  );
}
