// @broker/client/stream: any stream or socket of a daemon, kept open; createClient needs neither.

export { openEventStream } from "./eventstream.js";
export { openSocket } from "./socket.js";
