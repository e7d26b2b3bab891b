// What a person should know, newest first; each can be dismissed.
import { useRealtimeAlerts } from "@broker/client/react";
import { Card } from "./Card";
import { timeOf } from "./numbers";

const MARKS = { info: "i", warning: "!", critical: "‼" };

export function Alerts({ userId }: { userId: string }) {
  const stream = useRealtimeAlerts(userId);
  const { alerts, clearAlerts, dismissAlert } = stream;
  return (
    <Card
      title="Alerts"
      about={alerts.length ? `${alerts.length}` : ""}
      className="alerts"
      stream={stream}
      actions={
        alerts.length > 0 && (
          <button type="button" onClick={clearAlerts}>
            Clear
          </button>
        )
      }
    >
      {alerts.length === 0 ? (
        <p className="empty">No alerts. New ones appear here.</p>
      ) : (
        <ul className="alert-list" tabIndex={0} aria-label="Alerts, newest first">
          {alerts.map((alert) => (
            <li key={alert.alertId} className={`alert ${alert.severity}`}>
              <span className="mark" aria-hidden="true">
                {MARKS[alert.severity] ?? "i"}
              </span>
              <div>
                <h3>{alert.title}</h3>
                <p>{alert.message}</p>
                <p className="facts">
                  <span>
                    {alert.severity}, {alert.category}
                  </span>
                  <time dateTime={alert.timestamp}>{timeOf(alert.timestamp)}</time>
                  {alert.actionRequired && <strong>to do</strong>}
                </p>
                {alert.actions?.map(({ label, url }) =>
                  // An event may come from anywhere: only addresses of the web become links.
                  url && /^https?:/i.test(url) ? (
                    <a key={label} href={url} rel="noreferrer">
                      {label}
                    </a>
                  ) : null,
                )}
              </div>
              <button
                type="button"
                className="dismiss"
                aria-label={`Dismiss: ${alert.title}`}
                onClick={() => dismissAlert(alert.alertId)}
              >
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}
