import { createServer } from 'node:net'
const { Aedes } = await import(process.env.AEDES)
const broker = await Aedes.createBroker({ maxClientsIdLength: 65535, queueLimit: 100000 })
createServer({ noDelay: true }, broker.handle).listen({ host: '127.0.0.1', port: 18835, backlog: 4096 })
