// What a dashboard here may be made of, in Grafana's own types. Its Dashboard leaves a panel's options, its own field configuration and its
// queries open, since they are the plugins' business: here each kind of panel that is used has its plugin's.
import type { DataQuery } from '@grafana/schema';
import type * as grafana from './node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import type * as statPlugin from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as tablePlugin from './node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as timePlugin from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';

// `Prometheus` of @grafana/prometheus 13.2.3, which is not worth its 200 packages.
interface Query extends Omit<DataQuery, 'datasource'> {
  datasource: grafana.DataSourceRef;
  expr: string;
  editorMode?: 'builder' | 'code';
  exemplar?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  interval?: string;
  intervalFactor?: number;
  legendFormat?: string;
  range?: boolean;
}

// Grafana fills in what a panel leaves out of its options, but not within one of them.
interface Panel<Kind extends string, Options, Custom>
  extends Omit<grafana.Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Kind;
  title: string;
  options?: Partial<Options>;
  fieldConfig: {
    defaults: Omit<grafana.FieldConfig, 'custom'> & { custom?: Partial<Custom> };
    overrides: grafana.FieldConfigSource['overrides'];
  };
  targets: Query[];
}

interface Variable extends Omit<grafana.VariableModel, 'query'> {
  query: string | { query: string; refId: string };
}

// One schema for each: an error of "none of these kinds" would name all that each of them misses.
export type row = grafana.RowPanel;
export type timeseries = Panel<'timeseries', timePlugin.Options, timePlugin.FieldConfig>;
export type stat = Panel<'stat', statPlugin.Options, Record<never, never>>;
export type table = Panel<'table', tablePlugin.Options, tablePlugin.FieldConfig>;

export interface Board extends Omit<grafana.Dashboard, 'panels' | 'templating'> {
  uid: string;
  title: string;
  panels: { type: string; id: number; [more: string]: unknown }[];
  templating: { list: Variable[] };
}
