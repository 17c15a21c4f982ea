// The sample client of `team_chat`, as its page has it. What comes before it stands for the page that it is loaded
// from: the address, and the agent's id and the key in the places that the sample keeps for them.
const { BASE, KEY, AGENT } = process.env
const plain = globalThis.fetch
globalThis.fetch = (path, options) =>
  plain(BASE + path.replace('abc123', AGENT), {
    ...options,
    headers: { ...options.headers, Authorization: options.headers.Authorization.replace('YOUR_API_KEY', KEY) }
  })

const response = await fetch('/api/agents/abc123/chat/stream', {
method: 'POST',
headers: {
'Authorization': 'Bearer YOUR_API_KEY',
'Content-Type': 'application/json',
},
body: JSON.stringify({ message: 'Hello!' }),
});
const reader = response.body.getReader();
const decoder = new TextDecoder();
while (true) {
const { done, value } = await reader.read();
if (done) break;
const chunk = decoder.decode(value);
const lines = chunk.split('\n');
for (const line of lines) {
if (line.startsWith('data: ')) {
const data = line.slice(6);
if (data === '[DONE]') break;
console.log(data); // Print each token
}
}
}
