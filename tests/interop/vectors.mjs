// Prints the cases of mqtt-packet's own test as JSON, one a line. Argument: the folder of node_modules.
//
// The test file is evaluated with its helpers replaced by ones that note their arguments; what it does
// without the helpers runs against the real package, with what goes in and comes out noted.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Writable } from 'node:stream'
import util from 'node:util'

const require = createRequire(`${process.argv[2]}/package.json`)
const real = require('mqtt-packet')

const HELPERS = `
function testParseGenerate (name, object, bytes, opts) {
  note('decode', name, opts, { packet: object, bytes })
  note('encode', name, opts, { packet: object, bytes })
}
function testParseOnly (name, object, bytes, opts) { note('decode', name, opts, { packet: object, bytes }) }
function testGenerateOnly (name, object, bytes, opts) { note('encode', name, opts, { packet: object, bytes }) }
function testParseError (error, bytes, opts) { note('refuse', error, opts, { bytes }) }
function testGenerateError (error, object, opts, name) { note('unsayable', name || error, opts, {}) }
function testWriteToStreamError (error) { note('unsayable', error, {}, {}) }
`

function note (kind, name, opts, { packet, bytes, chunks, packets, failed }) {
  const version = (opts && opts.protocolVersion) || 4
  if (bytes) bytes = hex(bytes)
  packet = packet && plain(packet)
  console.log(JSON.stringify({ kind, name, version, packet, bytes, chunks, packets, failed }))
}

// Hexadecimal digits; a long run of one byte at the end is written as DIGITS*COUNT: one case is as large
// as a packet can be.
function hex (bytes) {
  const last = bytes[bytes.length - 1]
  let start = bytes.length
  while (start > 0 && bytes[start - 1] === last) start--
  const run = bytes.length - start
  if (run < 1024) return bytes.toString('hex')
  return `${bytes.toString('hex', 0, start + 1)}*${run}`
}

// Buffers become hexadecimal digits where MQTT has binary data, and text where it has strings; property
// blocks become lists, so that their order is kept.
const BINARY = new Set(['payload', 'password', 'correlationData', 'authenticationData'])

function plain (object) {
  const fields = Object.entries(object).filter(([, value]) => value != null)
  return Object.fromEntries(fields.map(([name, value]) => [name, plainField(name, value)]))
}

function plainField (name, value) {
  if (name === 'properties') return plainProperties(value)
  if (BINARY.has(name)) return hex(Buffer.from(value))
  if (Buffer.isBuffer(value)) return value.toString()
  if (Array.isArray(value)) return value.map(item => (typeof item === 'object' ? plain(item) : item))
  return typeof value === 'object' ? plain(value) : value
}

function plainProperties (properties) {
  const list = []
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue
    if (name === 'userProperties') {
      for (const [key, values] of Object.entries(value)) {
        for (const one of [values].flat()) list.push([name, key, one])
      }
    } else {
      for (const one of [value].flat()) list.push([name, plainField(name, one)])
    }
  }
  return list
}

// The package as the test's own cases see it: their byte streams and generated packets are noted.
function recorder (name) {
  const parsers = []
  const mqtt = Object.assign(Object.create(real), {
    generate (object, opts) {
      const bytes = real.generate(object, opts)
      note('encode', name, { protocolVersion: object.protocolVersion, ...opts }, { packet: object, bytes })
      return bytes
    },
    parser (opts) {
      const parser = real.parser(opts)
      const streams = []
      parsers.push({ opts, streams })
      const parse = parser.parse.bind(parser)
      const current = () => streams[streams.length - 1]
      parser.on('packet', packet => current().packets.push(plain(packet)))
      parser.on('error', () => { current().failed = true })
      parser.parse = chunk => {
        // After an error the next chunk starts a new stream.
        if (!streams.length || current().failed) streams.push({ chunks: [], packets: [], failed: false })
        current().chunks.push(hex(chunk))
        return parse(chunk)
      }
      return parser
    }
  })
  const finish = () => {
    for (const { opts, streams } of parsers) {
      for (const { chunks, packets, failed } of streams) {
        note('stream', name, opts, { chunks, packets, failed })
      }
    }
  }
  return { mqtt, finish }
}

let current = recorder('')
const modules = {
  './': new Proxy({}, { get: (_, key) => current.mqtt[key] }),
  tape: (name, body) => {
    current = recorder(name)
    body(new Proxy({}, { get: () => () => {} }))
    current.finish()
  },
  'readable-stream': { Writable },
  util
}
const source = readFileSync(require.resolve('mqtt-packet/test.js'), 'utf8')
// Of two functions with one name in one scope, the later one counts.
new Function('require', 'note', source + HELPERS)(name => modules[name], note)
