// Runs telegram-test-api on a free loopback port and prints it; ends when its standard input is closed.
const net = require('net');
const TelegramServer = require('telegram-test-api');

const probe = net.createServer().listen(0, '127.0.0.1', () => {
  const { port } = probe.address();
  probe.close(async () => {
    await new TelegramServer({ host: '127.0.0.1', port }).start();
    console.log(port);
  });
});
process.stdin.on('end', () => process.exit(0)).resume();
