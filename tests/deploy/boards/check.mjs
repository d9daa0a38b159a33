// Dashboards, held to Grafana's types: a field that they don't know, one of another type or one that is missing is an error.
//
//   node check.mjs FILE.json…
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const here = path.dirname(fileURLToPath(import.meta.url));
const generator = createGenerator({ path: path.join(here, 'boards.ts'), tsconfig: path.join(here, 'tsconfig.json'), skipTypeCheck: false });
const ajv = new Ajv({ allErrors: true, strict: false });
const kinds = Object.fromEntries(
  ['Board', 'row', 'timeseries', 'stat', 'table'].map((kind) => [kind, ajv.compile(generator.createSchema(kind))]));

/** What is wrong with `value`, which is to be of a kind, in lines. */
function faults(kind, value) {
  if (!kinds[kind]) return [`no such panel here as '${kind}'`];
  if (kinds[kind](value)) return [];
  return kinds[kind].errors.map(({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`);
}

/** What is wrong with a dashboard, in lines. */
function inspect(board) {
  const panels = (board.panels ?? []).flatMap((panel) => [panel, ...(panel.panels ?? [])]);
  const ids = panels.map((panel) => panel.id);
  return [
    ...faults('Board', board),
    ...panels.flatMap((panel) => faults(panel.type, panel).map((fault) => `panel '${panel.title}': ${fault}`)),
    ...ids.filter((id, at) => ids.indexOf(id) < at).map((id) => `two panels have the id ${id}`),
  ];
}

// A check that lets everything pass is seen to: each of these must be found.
const mutations = {
  'an unknown field of the dashboard': (board) => { board.tittle = ''; },
  'a wrong type in the dashboard': (board) => { board.refresh = 10; },
  'an unknown field of a panel': (board, panel) => { panel.titel = ''; },
  'an unknown kind of panel': (board, panel) => { panel.type = 'timeserie'; },
  "an unknown field of a plugin's": (board, panel) => { panel.fieldConfig.defaults.custom.lineWidht = 1; },
  "a word that a plugin doesn't know": (board, panel) => { panel.options.tooltip.mode = 'all'; },
  "a part of an option that is missing": (board, panel) => { delete panel.options.legend.calcs; },
  'a wrong type in a query': (board, panel) => { panel.targets[0].expr = 1; },
  'an unknown field of a query': (board, panel) => { panel.targets[0].legend = ''; },
  'a wrong type in a variable': (board) => { board.templating.list[1].multi = 'yes'; },
};

let failed = false;
for (const file of process.argv.slice(2)) {
  const text = fs.readFileSync(file, 'utf8');
  const found = inspect(JSON.parse(text));
  found.forEach((fault) => console.log(`BAD ${path.basename(file)}: ${fault}`));
  if (found.length) {
    failed = true;
    continue;
  }
  const blind = Object.entries(mutations).filter(([, mutate]) => {
    const board = JSON.parse(text);
    mutate(board, board.panels.find((panel) => panel.type === 'timeseries'));
    return inspect(board).length === 0;
  });
  blind.forEach(([name]) => console.log(`BAD ${path.basename(file)}: nobody minds ${name}`));
  if (blind.length) failed = true;
  else console.log(`ok  ${path.basename(file)} is what Grafana's types say, and ${Object.keys(mutations).length} faults in it are found`);
}
process.exit(failed || process.argv.length < 3 ? 1 : 0);
