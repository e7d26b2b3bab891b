import { ABTest } from "./ABTest";
import { Alerts } from "./Alerts";
import { CampaignMetrics } from "./CampaignMetrics";
import { CouncilEvaluation } from "./CouncilEvaluation";
import { RenderProgress } from "./RenderProgress";

// What is shown: ?campaign=...&job=...&test=...&user=... in the address, else the demo's.
const asked = new URLSearchParams(location.search);
const idOf = (name: string) => asked.get(name) ?? "demo";

export function App() {
  return (
    <>
      <header className="page-header">
        <h1>Campaign dashboard</h1>
        <p>
          Live over one connection. An example of <code>@broker/client/react</code>.
        </p>
      </header>
      <main className="grid">
        <CampaignMetrics campaignId={idOf("campaign")} />
        <Alerts userId={idOf("user")} />
        <RenderProgress jobId={idOf("job")} />
        <ABTest testId={idOf("test")} />
        <CouncilEvaluation />
      </main>
    </>
  );
}
