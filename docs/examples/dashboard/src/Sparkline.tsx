// A line without axes: where a number comes from, at a glance.
const WIDTH = 120;
const HEIGHT = 28;
const MARGIN = 3;

export function Sparkline({ values }: { values: number[] }) {
  const low = Math.min(...values);
  const range = Math.max(...values) - low || 1;
  const step = (WIDTH - 2 * MARGIN) / Math.max(1, values.length - 1);
  const points = values.map((value, index): [number, number] => [
    MARGIN + index * step,
    HEIGHT - MARGIN - ((value - low) / range) * (HEIGHT - 2 * MARGIN),
  ]);
  const last = points.at(-1);
  return (
    <svg className="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none">
      {points.length > 1 && <polyline points={points.map((point) => point.join()).join(" ")} />}
      {last && points.length > 1 && <circle cx={last[0]} cy={last[1]} r="2" />}
    </svg>
  );
}
