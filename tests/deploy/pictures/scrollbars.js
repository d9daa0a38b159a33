// This module says "default" in the way of another time; Grafana's table wants the component itself.
import * as all from './node_modules/react-custom-scrollbars-2/lib/index.js';

export default all.Scrollbars ?? all.default.Scrollbars;
