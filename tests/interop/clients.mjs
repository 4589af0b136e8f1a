// MQTT.js against a broker on a port of this machine. Arguments: the folder of node_modules, the port.
// Prints a line for each step that holds, and ends with an error at the first that does not.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const [folder, port] = process.argv.slice(2)
const mqtt = createRequire(`${folder}/package.json`)('mqtt')
const WAIT_MAX = 20_000

// Whoever waits looks again whenever anything happens on any connection.
const wakers = []
const wake = () => wakers.splice(0).forEach(resolve => resolve())

async function until (what, look) {
  const deadline = Date.now() + WAIT_MAX
  for (;;) {
    const found = look()
    if (found) return found
    const left = deadline - Date.now()
    if (left <= 0) throw new Error(`no ${what} came`)
    await new Promise(resolve => { wakers.push(resolve); setTimeout(resolve, left).unref() })
  }
}

/** One connection, with what came over it in queues. */
class Client {
  static async connect (version, clientId, options = {}) {
    const client = new Client()
    client.messages = []
    client.packets = []
    const names = { 3: 'MQIsdp', 4: 'MQTT', 5: 'MQTT' }
    client.mqtt = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
      protocolVersion: version,
      protocolId: names[version],
      clientId,
      reconnectPeriod: 0,
      ...options
    })
    client.mqtt.on('message', (topic, payload, packet) => {
      client.messages.push({ ...packet, topic, payload })
      wake()
    })
    client.mqtt.on('packetreceive', packet => { client.packets.push(packet); wake() })
    client.mqtt.on('close', () => { client.closed = true; wake() })
    client.mqtt.on('error', error => { client.error = error; wake() })
    client.connack = await client.packet('connack')
    return client
  }

  /** Waits until `look` finds something, or the connection fails. */
  async until (what, look) {
    const found = await until(what, () => look() || this.error)
    if (found === this.error) throw found
    return found
  }

  message () { return this.until('message', () => this.messages.shift()) }

  packet (cmd) {
    return this.until(cmd, () => {
      const at = this.packets.findIndex(packet => packet.cmd === cmd)
      return at >= 0 && this.packets.splice(at, 1)[0]
    })
  }

  /** The next message is this one. */
  async expect (topic, payload, qos, retain = false) {
    const message = await this.message()
    const { topic: t, payload: p, qos: q, retain: r } = message
    assert.deepEqual([t, p.toString(), q, r], [topic, payload.toString(), qos, retain])
    return message
  }

  async subscribe (filter, options) {
    await this.mqtt.subscribeAsync(filter, options)
    return (await this.packet('suback')).granted
  }

  /** A subscription with wildcards after which no message comes as a retained one any more: what a later
   * subscription finds comes after what the earlier one has found. */
  async watch (filter, options) {
    const topic = `settled/${this.mqtt.options.clientId}`
    await this.publish(topic, 'settled', { qos: 1, retain: true })
    await this.subscribe(filter, options)
    await this.subscribe(topic, { qos: 1 })
    await this.expect(topic, 'settled', 1, true)
  }

  publish (topic, payload, options) { return this.mqtt.publishAsync(topic, payload, options) }

  end (options) { return this.mqtt.endAsync(false, options) }

  /** The connection ends without DISCONNECT. */
  async cut () {
    this.mqtt.stream.destroy()
    await this.until('close', () => this.closed)
  }
}

/** Every QoS published to every QoS granted, in order, with payloads of any bytes. */
async function qos (version, at) {
  const subscriber = await Client.connect(version, `${at}-sub`)
  const publisher = await Client.connect(version, `${at}-pub`)
  for (const granted of [0, 1, 2]) {
    assert.deepEqual(await subscriber.subscribe(`${at}/${granted}/#`, { qos: granted }), [granted])
    for (const qos of [0, 1, 2]) {
      const topic = `${at}/${granted}/ünïcode/${qos}`
      const payloads = Array.from({ length: 30 }, (_, n) => Buffer.alloc(n * 100, n))
      await Promise.all(payloads.map(payload => publisher.publish(topic, payload, { qos })))
      for (const payload of payloads) {
        const message = await subscriber.expect(topic, payload, Math.min(qos, granted))
        assert(message.payload.equals(payload))
      }
    }
  }
  const large = Buffer.alloc(300_000, 'large')
  await publisher.publish(`${at}/2/large`, large, { qos: 2 })
  await subscriber.expect(`${at}/2/large`, large, 2)
  await subscriber.mqtt.unsubscribeAsync(`${at}/2/#`)
  await publisher.publish(`${at}/2/none`, 'none', { qos: 1 })
  await publisher.publish(`${at}/1/last`, 'last', { qos: 1 })
  await subscriber.expect(`${at}/1/last`, 'last', 1)
  await publisher.end()
  await subscriber.end()
}

async function retained (version, at) {
  const publisher = await Client.connect(version, `${at}-pub`)
  const live = await Client.connect(version, `${at}-live`)
  await live.watch(`${at}/#`, { qos: 1 })
  for (const qos of [0, 1, 2]) {
    await publisher.publish(`${at}/${qos}`, 'old', { qos, retain: true })
    await live.expect(`${at}/${qos}`, 'old', Math.min(qos, 1))
    await publisher.publish(`${at}/${qos}`, `kept ${qos}`, { qos, retain: true })
    await live.expect(`${at}/${qos}`, `kept ${qos}`, Math.min(qos, 1))
  }
  const late = await Client.connect(version, `${at}-late`)
  for (const qos of [0, 1, 2]) {
    await late.subscribe(`${at}/${qos}`, { qos: 2 })
    await late.expect(`${at}/${qos}`, `kept ${qos}`, qos, true)
  }
  if (version === 5) {
    await late.subscribe(`${at}/1`, { qos: 2, rh: 1 })
    await late.subscribe(`${at}/2`, { qos: 2, rh: 2 })
    await late.subscribe(`${at}/0`, { qos: 2, rap: true })
    await late.expect(`${at}/0`, 'kept 0', 0, true)
    await publisher.publish(`${at}/0`, 'as published', { qos: 1, retain: true })
    await late.expect(`${at}/0`, 'as published', 1, true)
    await live.expect(`${at}/0`, 'as published', 1)
  }
  for (const qos of [0, 1, 2]) {
    await publisher.publish(`${at}/${qos}`, '', { qos: 1, retain: true })
    await live.expect(`${at}/${qos}`, '', 1)
    await late.expect(`${at}/${qos}`, '', 1, version === 5 && qos === 0)
  }
  const after = await Client.connect(version, `${at}-after`)
  await after.subscribe(`${at}/#`, { qos: 2 })
  await publisher.publish(`${at}/live`, 'live', { qos: 2 })
  await after.expect(`${at}/live`, 'live', 2)
  for (const client of [publisher, live, late, after]) await client.end()
}

async function will (version, at) {
  const watcher = await Client.connect(version, `${at}-watch`)
  await watcher.watch(`${at}/#`, { qos: 2 })
  for (const qos of [0, 1, 2]) {
    const will = { topic: `${at}/${qos}`, payload: Buffer.from('gone'), qos, retain: qos === 1 }
    if (version === 5) {
      will.properties = {
        willDelayInterval: 0,
        contentType: 'text/plain',
        responseTopic: 'answer',
        correlationData: Buffer.from([0, 255]),
        messageExpiryInterval: 100,
        payloadFormatIndicator: true,
        userProperties: { why: 'lost' }
      }
    }
    await (await Client.connect(version, `${at}-dying`, { will })).cut()
    const { properties } = await watcher.expect(will.topic, 'gone', qos)
    if (version === 5) {
      assert.equal(properties.contentType, 'text/plain')
      assert.equal(properties.responseTopic, 'answer')
      assert.deepEqual([...properties.correlationData], [0, 255])
      assert.equal(properties.messageExpiryInterval, 100)
      assert.equal(properties.payloadFormatIndicator, true)
      assert.deepEqual({ ...properties.userProperties }, { why: 'lost' })
    }
  }
  const late = await Client.connect(version, `${at}-late`)
  await late.subscribe(`${at}/#`, { qos: 2 })
  await late.expect(`${at}/1`, 'gone', 1, true)
  // An orderly end sends none, unless a v5 client asks for it.
  const last = { topic: `${at}/last`, payload: Buffer.from('asked for'), qos: 1, retain: false }
  await (await Client.connect(version, `${at}-leaving`, { will: last })).end()
  if (version === 5) {
    await (await Client.connect(version, `${at}-asking`, { will: last })).end({ reasonCode: 4 })
    await watcher.expect(`${at}/last`, 'asked for', 1)
  }
  await late.publish(`${at}/1`, '', { qos: 1, retain: true })
  await watcher.expect(`${at}/1`, '', 1)
  await watcher.end()
  await late.end()
}

async function resume (version, at) {
  const options = { clean: false, keepalive: 30 }
  if (version === 5) options.properties = { sessionExpiryInterval: 60 }
  const first = await Client.connect(version, at, options)
  assert.equal(first.connack.sessionPresent, false)
  await first.subscribe(`${at}/#`, { qos: 2 })
  await first.cut()
  const publisher = await Client.connect(version, `${at}-pub`)
  const expected = []
  for (let n = 0; n < 40; n++) {
    const qos = n % 2 + 1
    await publisher.publish(`${at}/${n}`, `waited ${n}`, { qos })
    expected.push([`${at}/${n}`, `waited ${n}`, qos])
  }
  const second = await Client.connect(version, at, options)
  // MQTT 3.1 has no such flag.
  assert.equal(second.connack.sessionPresent, version > 3)
  // Each QoS in its order: MQTT.js shows a QoS 2 message when its exchange is over.
  const seen = []
  for (let n = 0; n < 40; n++) {
    const { topic, payload, qos } = await second.message()
    seen.push([topic, payload.toString(), qos])
  }
  const of = (qos, list) => list.filter(message => message[2] === qos)
  for (const qos of [1, 2]) assert.deepEqual(of(qos, seen), of(qos, expected))
  await publisher.publish(`${at}/live`, 'live', { qos: 1 })
  await second.expect(`${at}/live`, 'live', 1)
  await second.end()
  // A clean start ends the session.
  const clean = await Client.connect(version, at, { clean: true })
  assert.equal(clean.connack.sessionPresent, false)
  await clean.end()
  const third = await Client.connect(version, at, options)
  assert.equal(third.connack.sessionPresent, false)
  await third.end()
  await publisher.end()
}

/** What was sent and not acknowledged when the connection ended is sent again. */
async function redelivery (version, at) {
  const options = { clean: false }
  if (version === 5) options.properties = { sessionExpiryInterval: 60 }
  const first = await Client.connect(version, at, options)
  await first.subscribe(`${at}/#`, { qos: 1 })
  // MQTT.js acknowledges a message when this has called back.
  first.mqtt.handleMessage = () => {}
  const publisher = await Client.connect(version, `${at}-pub`)
  for (const n of [0, 1, 2]) await publisher.publish(`${at}/t`, `${n}`, { qos: 1 })
  await first.packet('publish')
  await first.cut()
  const second = await Client.connect(version, at, options)
  const dups = []
  for (const n of [0, 1, 2]) dups.push((await second.expect(`${at}/t`, `${n}`, 1)).dup)
  assert.equal(dups[0], true)
  await second.end()
  await publisher.end()
}

/** Exactly once, however often both connections break. */
async function reconnects (version, at) {
  const options = { clean: false, reconnectPeriod: 10 }
  if (version === 5) options.properties = { sessionExpiryInterval: 60, receiveMaximum: 10 }
  const subscriber = await Client.connect(version, `${at}-sub`, options)
  await subscriber.subscribe(`${at}/#`, { qos: 2 })
  const publisher = await Client.connect(version, `${at}-pub`, options)
  const all = Array.from({ length: 320 }, (_, n) => `${n}`)
  const sent = []
  for (let start = 0; start < all.length; start += 40) {
    const some = all.slice(start, start + 40)
    sent.push(...some.map(n => publisher.publish(`${at}/t`, n, { qos: 2 })))
    await until('half of them', () => subscriber.messages.length >= start + 20)
    for (const client of [publisher, subscriber]) client.mqtt.stream.destroy()
    for (const client of [publisher, subscriber]) await client.packet('connack')
  }
  await Promise.all(sent)
  await publisher.publish(`${at}/last`, 'last', { qos: 2 })
  await until('last message', () => subscriber.messages.some(({ topic }) => topic === `${at}/last`))
  const seen = subscriber.messages.map(({ payload }) => payload.toString())
  assert.deepEqual(seen.sort(), [...all, 'last'].sort())
  await publisher.end()
  await subscriber.end()
}

/** A connection without messages lives by its pings. */
async function keepalive (version, at) {
  const client = await Client.connect(version, at, { keepalive: 1 })
  for (let n = 0; n < 3; n++) await client.packet('pingresp')
  assert(!client.closed)
  await client.end()
}

/** What only 5.0 has, on messages. */
async function properties (version, at) {
  const options = { properties: { receiveMaximum: 3, topicAliasMaximum: 5 } }
  const subscriber = await Client.connect(version, `${at}-sub`, options)
  await subscriber.subscribe(`${at}/#`, { qos: 2, properties: { subscriptionIdentifier: 7 } })
  await subscriber.subscribe(`${at}/a/+`, { qos: 2, properties: { subscriptionIdentifier: 300_000 } })
  const publisher = await Client.connect(version, `${at}-pub`, { autoAssignTopicAlias: true })
  assert(publisher.connack.properties.topicAliasMaximum > 0)
  const sent = {
    payloadFormatIndicator: true,
    messageExpiryInterval: 1000,
    contentType: 'application/json',
    responseTopic: `${at}/answer`,
    correlationData: Buffer.from([1, 0, 2]),
    userProperties: { one: ['1', 'again'], two: 'zwei' }
  }
  for (let n = 0; n < 20; n++) {
    // MQTT.js writes the alias into the object that it is given.
    const properties = { ...sent }
    await publisher.publish(`${at}/a/b`, `${n}`, { qos: n % 3, properties })
    const message = await subscriber.expect(`${at}/a/b`, `${n}`, n % 3)
    const { subscriptionIdentifier, topicAlias, userProperties, ...rest } = message.properties
    assert.deepEqual([subscriptionIdentifier].flat().sort(), [300_000, 7])
    assert.deepEqual({ ...userProperties }, sent.userProperties)
    const { userProperties: _, ...expected } = sent
    assert.deepEqual({ ...rest, correlationData: [...rest.correlationData] },
      { ...expected, correlationData: [1, 0, 2] })
  }
  // Far more than the subscriber's window, at once.
  const all = Array.from({ length: 60 }, (_, n) => `${n}`)
  await Promise.all(all.map(n => publisher.publish(`${at}/many`, n, { qos: 1 })))
  for (const n of all) await subscriber.expect(`${at}/many`, n, 1)
  // No Local.
  await publisher.subscribe(`${at}/own`, { qos: 1, nl: true })
  await publisher.publish(`${at}/own`, 'own', { qos: 1 })
  await subscriber.expect(`${at}/own`, 'own', 1)
  await subscriber.publish(`${at}/own`, 'of another', { qos: 1 })
  await publisher.expect(`${at}/own`, 'of another', 1)
  await publisher.end()
  await subscriber.end()
}

/** What only 5.0 has: what the broker says of an outcome. */
async function reasons (version, at) {
  const client = await Client.connect(version, at, { properties: { sessionExpiryInterval: 30 } })
  await client.publish(`${at}/nobody`, 'x', { qos: 1 })
  assert.equal((await client.packet('puback')).reasonCode, 0x10)
  await client.publish(`${at}/nobody`, 'x', { qos: 2 })
  assert.equal((await client.packet('pubrec')).reasonCode, 0x10)
  await assert.rejects(client.publish('$SYS/mine', 'x', { qos: 1 }), { code: 0x87 })
  await assert.rejects(client.publish('$SYS/mine', 'x', { qos: 2 }), { code: 0x87 })
  await client.subscribe(`${at}/x`, { qos: 1 })
  await client.mqtt.unsubscribeAsync([`${at}/x`, `${at}/y`])
  assert.deepEqual((await client.packet('unsuback')).granted, [0x00, 0x11])
  const newer = await Client.connect(version, at, { clean: false })
  assert.equal(newer.connack.sessionPresent, true)
  assert.equal((await client.packet('disconnect')).reasonCode, 0x8e)
  await newer.end()
  const nameless = await Client.connect(version, '')
  assert(nameless.connack.properties.assignedClientIdentifier)
  await nameless.end()
}

/** A group takes turns: each message reaches one member. */
async function shared (version, at) {
  const members = [await Client.connect(version, `${at}-1`), await Client.connect(version, `${at}-2`)]
  for (const member of members) await member.subscribe(`$share/group/${at}/#`, { qos: 1 })
  const publisher = await Client.connect(version, `${at}-pub`)
  const jobs = Array.from({ length: 20 }, (_, n) => `${n}`)
  for (const job of jobs) await publisher.publish(`${at}/job`, job, { qos: 1 })
  const done = () => members.flatMap(member => member.messages.map(({ payload }) => payload.toString()))
  await until('message to a member', () => done().length >= jobs.length)
  assert.deepEqual(done().sort(), jobs.sort())
  assert(members.every(member => member.messages.length > 0))
  for (const client of [publisher, ...members]) await client.end()
}

const STEPS = {
  3: [qos, retained, will, resume],
  4: [qos, retained, will, resume, redelivery, reconnects, shared],
  5: [qos, retained, will, resume, redelivery, reconnects, shared, keepalive, properties, reasons]
}
for (const [version, steps] of Object.entries(STEPS)) {
  for (const step of steps) {
    try {
      await step(Number(version), `js${version}/${step.name}`)
    } catch (error) {
      console.log(`in ${step.name} of protocol version ${version}`)
      throw error
    }
    console.log(`ok ${version} ${step.name}`)
  }
}
