// MQTT.js, driven by lines of JSON; tests/interop/lines.py tells the protocol.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import mqtt from "mqtt";

const PATIENCE_MS = 15_000;
const SCHEMES = { tcp: "mqtt", tls: "mqtts", mtls: "mqtts", ws: "ws", wss: "wss" };
const VERSIONS = { "3.1.1": 4, "5.0": 5 };

const clients = new Map();

const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const fault = (id, error) => write({ id, fault: String(error?.message ?? error) });
const given = (pairs) => Object.fromEntries(pairs.filter(([, value]) => value != null));

/** Gives pairs as MQTT.js has user properties: a key with several values holds a list. */
function gathered(pairs) {
  const found = {};
  for (const [key, value] of pairs) {
    (found[key] ??= []).push(value);
  }
  return found;
}

function spread(user) {
  return Object.entries(user ?? {}).flatMap(([key, values]) =>
    [values].flat().map((value) => [key, value]),
  );
}

function options(step) {
  const { way, will } = step;
  const file = (name) => (way[name] ? readFileSync(way[name]) : undefined);
  const found = {
    protocolVersion: VERSIONS[step.version],
    clientId: step.client_id,
    clean: step.clean,
    keepalive: 30,
    reconnectPeriod: step.reconnect ? 100 : 0,
    connectTimeout: PATIENCE_MS,
    resubscribe: false,
    ca: file("ca_file"),
    cert: file("cert_file"),
    key: file("key_file"),
    username: way.username,
    password: way.password,
  };
  if (will) {
    found.will = { ...will, payload: Buffer.from(will.payload, "hex") };
  }
  if (step.version === "5.0") {
    found.properties = given([
      ["sessionExpiryInterval", step.keep_s],
      ["receiveMaximum", step.receive_max],
      ["maximumPacketSize", step.packet_bytes_max],
      ["topicAliasMaximum", step.alias_max],
    ]);
  }
  return found;
}

function message(packet, topic, payload) {
  const found = packet.properties ?? {};
  return {
    topic,
    payload: payload.toString("hex"),
    qos: packet.qos,
    retain: packet.retain,
    user: spread(found.userProperties),
    response_topic: found.responseTopic,
    correlation: found.correlationData?.toString("hex"),
    content_type: found.contentType,
    expiry_s: found.messageExpiryInterval,
    identifiers: [found.subscriptionIdentifier ?? []].flat(),
  };
}

function open(step) {
  const { way } = step;
  const url = `${SCHEMES[way.name]}://${way.host}:${way.port}${way.path ?? ""}`;
  const client = mqtt.connect(url, options(step));
  clients.set(step.as, client);
  let answered = false;
  const once = (line) => {
    if (!answered) {
      answered = true;
      write({ id: step.id, ...line });
    }
  };
  client.on("message", (topic, payload, packet) => {
    write({ as: step.as, message: message(packet, topic, payload) });
  });
  client.on("error", (error) => {
    once(Number.isInteger(error.code) ? { refused: error.code } : { fault: String(error) });
  });
  client.on("close", () => once({ fault: "the connection was closed" }));
  client.on("connect", ({ sessionPresent }) => {
    if (answered) {
      return;
    }
    const wanted = step.subscriptions ?? [];
    if (wanted.length === 0) {
      once({ present: sessionPresent, granted: [] });
      return;
    }
    const filters = Object.fromEntries(wanted.map((one) => [one.filter, { qos: one.qos }]));
    const { identifier } = wanted[0];
    const extra = identifier ? { properties: { subscriptionIdentifier: identifier } } : {};
    client.subscribe(filters, extra, (error, granted, suback) => {
      const codes = suback?.granted ?? granted?.map((one) => one.qos);
      once(codes ? { present: sessionPresent, granted: codes } : { fault: String(error) });
    });
  });
}

function publish(step) {
  const extra = { qos: step.qos, retain: step.retain };
  const properties = given([
    ["userProperties", step.user && gathered(step.user)],
    ["responseTopic", step.response_topic],
    ["correlationData", step.correlation && Buffer.from(step.correlation, "hex")],
    ["contentType", step.content_type],
    ["messageExpiryInterval", step.expiry_s],
    ["topicAlias", step.alias],
  ]);
  if (Object.keys(properties).length > 0) {
    extra.properties = properties;
  }
  const payload = Buffer.from(step.payload, "hex");
  clients.get(step.as).publish(step.topic, payload, extra, (error) => {
    if (error && !Number.isInteger(error.code)) {
      fault(step.id, error);
    } else {
      write({ id: step.id, reason: error?.code ?? null });
    }
  });
}

function end(step, forced) {
  const client = clients.get(step.as);
  clients.delete(step.as);
  client.end(forced, () => write({ id: step.id }));
}

const STEPS = {
  open,
  publish,
  close: (step) => end(step, false),
  drop: (step) => end(step, true),
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const step = JSON.parse(line);
  try {
    STEPS[step.do](step);
  } catch (error) {
    fault(step.id, error);
  }
}).on("close", () => process.exit(0));
