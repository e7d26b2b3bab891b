/**
 * The client that a tree of components shares.
 *
 * Laws: one connection a provider, however many components; without a provider one for the page, to
 * the page's own origin. Making a client opens nothing: the first subscriber does, and some time
 * (`lingerMs`) after the last one the connection is closed.
 */

import { createContext, createElement, useContext } from "react";

import { createClient } from "../index.js";
import { useKept, useNewest } from "./kept.js";

/**
 * @typedef {import("../index.js").Client} Client
 * @typedef {import("../index.js").ClientOptions} ClientOptions
 */

/** @type {import("react").Context<Client | null>} */
const BrokerContext = createContext(/** @type {Client | null} */ (null));

/** @type {Client | undefined} */
let pageClient;

/**
 * Have the components below share a client: `<BrokerProvider url="https://events.example.com">`, or
 * one that was made elsewhere: `<BrokerProvider client={client}>`.
 *
 * `getToken` and `onUserEvent` may be other functions at each render; another `url`, `userId`, ...
 * makes another client.
 *
 * @param {ClientOptions & { client?: Client, children?: import("react").ReactNode }} props
 */
export function BrokerProvider({ client, children, ...options }) {
  const { getToken, onUserEvent, ...plain } = options;
  const newest = useNewest(options);
  const key = client ? [client] : [JSON.stringify(plain), getToken === undefined];
  const value = useKept(key, () => {
    if (client) return client;
    return createClient({
      ...plain,
      getToken: getToken && (() => newest.current.getToken?.()),
      onUserEvent: (event) => newest.current.onUserEvent?.(event),
    });
  });
  return createElement(BrokerContext.Provider, { value }, children);
}

/**
 * The client of the provider above, else that of the page.
 *
 * @returns {Client}
 */
export function useBroker() {
  return useContext(BrokerContext) ?? (pageClient ??= createClient());
}
