// Rates side by side on one axis: a dot for what was measured, a bar for where the rate may be.
import type { Interval } from "./interval";
import { written } from "./numbers";

export interface Row {
  name: string;
  interval: Interval;
  isWinner: boolean;
}

const WIDTH = 360;
const LEFT = 34;
const RIGHT = 20;
const ROW_HEIGHT = 34;
const AXIS_HEIGHT = 22;
const TICKS_MAX = 5;

export function IntervalChart({ rows, label }: { rows: Row[]; label: string }) {
  const low = Math.min(...rows.map(({ interval }) => interval.low));
  const high = Math.max(...rows.map(({ interval }) => interval.high));
  const step = stepOver(high - low);
  const first = Math.floor(low / step) * step;
  const count = Math.max(1, Math.ceil((high - first) / step - 1e-9));
  const ticks = Array.from({ length: count + 1 }, (_, index) => first + index * step);
  const last = first + count * step;
  const x = (rate: number) => LEFT + ((rate - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const bottom = rows.length * ROW_HEIGHT;
  const told = rows.map(
    ({ name, interval: { low, rate, high } }) =>
      `${name}: ${written(rate, "share")}, ` +
      `likely ${written(low, "share")} to ${written(high, "share")}`,
  );
  return (
    <svg
      className="interval-chart"
      viewBox={`0 0 ${WIDTH} ${bottom + AXIS_HEIGHT}`}
      role="img"
      aria-label={`${label}. ${told.join("; ")}.`}
    >
      {ticks.map((tick) => (
        <g key={tick} className="tick">
          <line x1={x(tick)} x2={x(tick)} y1="0" y2={bottom} />
          <text x={x(tick)} y={bottom + 15} textAnchor="middle">
            {(tick * 100).toFixed(step < 0.001 ? 2 : 1)}%
          </text>
        </g>
      ))}
      {rows.map(({ name, interval: { low, rate, high }, isWinner }, index) => {
        const y = index * ROW_HEIGHT + ROW_HEIGHT / 2;
        return (
          <g key={name} className={isWinner ? "variant winner" : "variant"}>
            <text x="4" y={y + 4}>
              {name}
            </text>
            <rect x={x(low)} y={y - 5} width={Math.max(1, x(high) - x(low))} height="10" rx="5" />
            <circle cx={x(rate)} cy={y} r="6" />
          </g>
        );
      })}
    </svg>
  );
}

/** A round step that cuts `range` into a few parts. */
function stepOver(range: number): number {
  const wanted = Math.max(range, 1e-4) / (TICKS_MAX - 1);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= wanted) ?? 10);
}
