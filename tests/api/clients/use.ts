// What a program that uses the generated client does; compiled with the client, in strict mode, and run by node.
import { client } from './client/client.gen.js'
import { createToken, getVm, listVms, provisionVm, setQuota } from './client/sdk.gen.js'

declare const process: { env: Record<string, string | undefined> }

const tenant = process.env.BERTH_TENANT ?? ''
const group = process.env.BERTH_GROUP ?? ''

client.setConfig({ baseUrl: process.env.BERTH_URL ?? '', auth: () => process.env.BERTH_TOKEN ?? '' })

function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what)
}

const made = await provisionVm({
  body: { tenant, name: 'ts-1', group, resources: { cpu: 1, memory_mib: 256 } },
  headers: { 'Idempotency-Key': `${tenant}-ts-1` },
})
must(made.data !== undefined, `not made: ${JSON.stringify(made.error)}`)
must(made.data.resource?.state === 'scheduled', 'it has a berth')
must(made.response?.headers.get('Location') === `/v1/operations/${made.data.operation}`, 'an operation is under way')

const one = await getVm({ path: { tenant, vm: 'ts-1' }, query: { min_position: made.data.position } })
must(one.data?.resources.cpu === 1, 'it is read again')

const all = await listVms({ query: { state: ['scheduled', 'active'], sort: '-created_at', count: true } })
must((all.data?.count ?? 0) >= 1 && (all.data?.items ?? []).some((vm) => vm.name === 'ts-1'), 'it is listed')

const refused = await provisionVm({
  body: { tenant, name: 'ts-2', group, resources: { cpu: 1_000_000 } },
})
const problem = refused.error
must(problem !== undefined && problem.code === 'quota_exceeded', `refused: ${JSON.stringify(problem)}`)
must(problem.shortfalls[0]?.resource === 'cpu', 'a problem has the fields of its code')

const quota = await setQuota({ path: { group, tenant }, body: { limits: { cpu: 500 } } })
must(quota.data?.resource?.limits.cpu === 500, 'a quota is set')

const token = await createToken({ body: { name: `${tenant}-from-ts`, role: 'viewer' } })
must((token.data?.secret ?? '').length > 20, 'the secret comes once')
console.log('done')
