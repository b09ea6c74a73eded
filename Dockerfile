# One image for every process: `docker run berth NAME`, see workers/__main__.py for the names.
FROM python:3.11-slim AS build
WORKDIR /srv/berth
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt LICENSE ./
COPY domain domain
COPY eventlog eventlog
COPY commands commands
COPY projections projections
COPY messaging messaging
COPY api api
COPY workers workers
COPY cli cli
# Editable: the image keeps the sources in the same place, beside what is no package (examples, the portal's files).
RUN /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt --editable .

FROM python:3.11-slim
# A named user: PostgreSQL's initdb refuses a user id without a passwd entry, and nothing here needs root. It is the one
# who may read the secrets that `make secrets` made.
ARG BERTH_UID=10001
RUN useradd --uid "$BERTH_UID" --create-home --shell /usr/sbin/nologin berth \
    && install -d -o berth -g berth -m 0700 /var/lib/berth /var/lib/berth/nats
COPY --from=build /opt/venv /opt/venv
COPY . /srv/berth
COPY --from=build /srv/berth/berth_cloud.egg-info /srv/berth/berth_cloud.egg-info
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 BERTH_DATA=/var/lib/berth
WORKDIR /srv/berth
USER berth
EXPOSE 8420
ENTRYPOINT ["python", "-m", "workers"]
CMD ["supervisor"]
