// A dashboard as Grafana's own components draw it: its panels, on its grid, with series that were fetched before (board.json).
import { createTheme, applyFieldOverrides, dateTime, FieldType, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome, Table, TimeSeries } from '@grafana/ui';
import { createRoot } from 'react-dom/client';

// Grafana's grid: 24 columns, rows of 30 pixels, 8 between.
const WIDTH = 1400, COLUMN = (WIDTH - 8) / 24, ROW = 30, GAP = 8;
const theme = createTheme({ colors: { mode: 'light' } });
const LINE = { drawStyle: 'line', lineInterpolation: 'linear', axisPlacement: 'auto', scaleDistribution: { type: 'linear' },
  hideFrom: { legend: false, tooltip: false, viz: false }, thresholdsStyle: { mode: 'off' }, gradientMode: 'none', pointSize: 5 };

function finished(panel, frames) {
  return applyFieldOverrides({ data: frames, fieldConfig: { defaults: {}, overrides: [] }, replaceVariables: (text) => text, theme, timeZone: 'utc' });
}

function line({ name, times, values }, panel) {
  const config = { ...panel.fieldConfig.defaults, custom: { ...LINE, ...panel.fieldConfig.defaults.custom },
    color: { mode: 'palette-classic' }, displayNameFromDS: name };
  return { name, length: times.length, fields: [
    { name: 'Time', type: FieldType.time, config: {}, values: times },
    { name: 'Value', type: FieldType.number, config, values },
  ] };
}

function table({ columns }, panel) {
  const fields = columns.map(({ name, values }) => {
    const number = values.every((value) => typeof value === 'number');
    return { name, type: number ? FieldType.number : FieldType.string, values,
      config: { custom: {}, displayNameFromDS: name, ...(number && { unit: panel.fieldConfig.defaults.unit }) } };
  });
  return { length: fields[0].values.length, fields };
}

function Inside({ panel, range, width, height }) {
  if (panel.type === 'table') {
    return <Table data={finished(panel, [table(panel.held, panel)])[0]} width={width} height={height} />;
  }
  const timeRange = { from: dateTime(range[0]), to: dateTime(range[1]), raw: { from: 'now-5m', to: 'now' } };
  const frames = finished(panel, panel.held.series.map((one) => line(one, panel)));
  return <TimeSeries frames={frames} structureRev={1} timeRange={timeRange} timeZone="utc" width={width} height={height}
    legend={{ ...panel.options.legend, calcs: [] }} options={panel.options} replaceVariables={(text) => text} />;
}

function Panel({ panel, range }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: GAP + x * COLUMN, top: y * (ROW + GAP) };
  if (panel.type === 'row') {
    return <div style={{ ...place, font: theme.typography.h5.fontSize, lineHeight: '30px', fontWeight: 500 }}>{panel.title}</div>;
  }
  return <div style={place}>
    <PanelChrome title={panel.title} width={w * COLUMN - GAP} height={h * (ROW + GAP) - GAP}>
      {(width, height) => <Inside panel={panel} range={range} width={width} height={height} />}
    </PanelChrome>
  </div>;
}

const board = await (await fetch('/board.json')).json();
const rows = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
createRoot(document.getElementById('board')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div id="done" style={{ position: 'relative', width: WIDTH + GAP, height: rows * (ROW + GAP) + GAP, background: theme.colors.background.canvas }}>
      {board.panels.map((panel) => <Panel key={panel.id} panel={panel} range={board.range} />)}
    </div>
  </ThemeContext.Provider>
);
