// Before a server that binds every interface: it gets this machine's own only.
const net = require('node:net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (typeof first === 'object' && first !== null) return listen.call(this, { ...first, host: '127.0.0.1' }, ...rest);
  if (typeof rest[0] === 'string') rest.shift();
  return listen.call(this, first, '127.0.0.1', ...rest);
};
// It writes into the headers of what `fetch` gave it, which Node refuses: without this its streams are errors.
const ask = globalThis.fetch;
globalThis.fetch = async (...asked) => {
  const answer = await ask(...asked);
  return new Response(answer.body, answer);
};
