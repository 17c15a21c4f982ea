// The sample client of `tool_chat`, as its page has it. What comes before it stands for the page that it is loaded
// from: the address, the key, and the agent's id in the place of `{id}`.
const { BASE, KEY, AGENT } = process.env
const plain = globalThis.fetch
globalThis.fetch = (path, options) =>
  plain(BASE + path.replace('{id}', AGENT), {
    ...options,
    headers: { ...options.headers, Authorization: `Bearer ${KEY}` }
  })

const response = await fetch('/api/agents/{id}/chat', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({
    message: 'Tell me a story',
    stream: true
  })
})
const reader = response.body.getReader()
const decoder = new TextDecoder()
while (true) {
  const { done, value } = await reader.read()
  if (done) break
  const lines = decoder.decode(value).split('\n')
  for (const line of lines) {
    if (line.startsWith('data: ')) {
      const data = JSON.parse(line.slice(6))
      if (data.type === 'delta') {
        process.stdout.write(data.content)
      }
    }
  }
}
