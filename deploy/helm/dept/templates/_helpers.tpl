{{- define "dept.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "dept.selector" -}}
app.kubernetes.io/name: dept
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dept.labels" -}}
{{ include "dept.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "dept.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "dept.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What contradicts itself fails here, with the key and the reason. */}}
{{- define "dept.check" -}}
{{- if and (not .Values.apiKeysSecret) (not .Values.allowAnonymous) -}}
{{- fail "apiKeysSecret is empty and allowAnonymous is false: name a Secret with keys.toml (docs/tenants.md), or say allowAnonymous: true" -}}
{{- end -}}
{{- if and .Values.apiKeysSecret .Values.allowAnonymous -}}
{{- fail "apiKeysSecret and allowAnonymous exclude each other: take one away" -}}
{{- end -}}
{{- if and (eq .Values.adapters.store "bucket") (not .Values.adapters.bucket) -}}
{{- fail "adapters.store is bucket and adapters.bucket is empty: give s3://BUCKET/PREFIX, gs:// or az://" -}}
{{- end -}}
{{- if and (ne .Values.adapters.store "bucket") (or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.kind "off")) -}}
{{- if not (and (eq .Values.adapters.store "claim") (has "ReadWriteMany" .Values.adapters.claim.accessModes)) -}}
{{- fail "several replicas need one store that all of them see: adapters.store: bucket, or a claim that is ReadWriteMany" -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "DEPT_WEIGHTS_CACHE" -}}
{{- fail "extraEnv has DEPT_WEIGHTS_CACHE, which weightsCache sets: say weightsCache.enabled: false for none" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled .Values.networkPolicy.enabled .Values.networkPolicy.monitoring (not .Values.inferencePool.endpointPicker.podLabels) -}}
{{- fail "networkPolicy.monitoring names who may scrape, and the endpoint picker has to: give inferencePool.endpointPicker.podLabels, the labels of its pods" -}}
{{- end -}}
{{- end -}}
