// How numbers are written here, in the reader's own language.
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const percent = new Intl.NumberFormat(undefined, { style: "percent" });
const share = new Intl.NumberFormat(undefined, {
  style: "percent",
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const money = new Intl.NumberFormat(undefined, { style: "currency", currency: "USD" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export type Unit = "count" | "number" | "percent" | "share" | "money";

export function written(value: number, unit: Unit): string {
  return { count: whole, number: fine, percent, share, money }[unit].format(value);
}

/** With its sign; a share as the points of percent that it has moved. */
export function movement(value: number, unit: Unit): string {
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±";
  if (unit === "share") return `${sign}${Math.abs(value * 100).toFixed(3)} pp`;
  return sign + written(Math.abs(value), unit);
}

export function timeOf(timestamp: string): string {
  const time = new Date(timestamp);
  return Number.isNaN(time.getTime()) ? "" : clock.format(time);
}

export function duration(seconds: number): string {
  const rest = Math.max(0, Math.round(seconds));
  return rest < 60 ? `${rest} s` : `${Math.floor(rest / 60)} min ${rest % 60} s`;
}
