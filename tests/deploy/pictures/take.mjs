// Pictures of dashboards: node take.mjs FOLDER…, each with a board.json, gets a board.png.
import { copyFile, readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';
import { createServer } from 'vite';
import react from '@vitejs/plugin-react';

const server = await createServer({ plugins: [react()], logLevel: 'error', server: { host: '127.0.0.1', port: 0 },
  define: { 'process.env': {} }, resolve: { alias: { 'react-custom-scrollbars-2': `${process.cwd()}/scrollbars.js` } } });
await server.listen();
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
  '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
try {
  for (const folder of process.argv.slice(2)) {
    await copyFile(`${folder}/board.json`, 'public/board.json');
    const page = await browser.newPage({ viewport: { width: 1408, height: 900 } });
    // "A minute ago" is meant from the end of the time shown.
    await page.clock.setFixedTime(JSON.parse(await readFile(`${folder}/board.json`, 'utf8')).range[1]);
    page.on('pageerror', (error) => { console.error(error.message); process.exitCode = 1; });
    await page.goto(server.resolvedUrls.local[0], { timeout: 300_000 });
    await page.waitForSelector('#done', { timeout: 300_000 });
    await page.waitForTimeout(3000); // the charts draw themselves a frame after
    await page.locator('#done').screenshot({ path: `${folder}/board.png` });
    await page.close();
  }
} finally {
  await browser.close();
  await server.close();
}
